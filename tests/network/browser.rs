//! What a person sees in Chromium when it uses the HTTP port.
//!
//! The test saves screenshots of each page in the folder `screenshots` below `target/tmp`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use onionport::failure::Failure;
use serde_json::json;
use testnet::{ClientKey, Corruption, Network, Service, ServiceOptions, Where, addresses};
use tokio::runtime::Runtime;

use crate::daemon::Onionport;
use crate::setup::{make_private, network_builder, run_in_parallel, start_proxy};
use devtools::Browser;

mod devtools;
mod site;

/// The deadline of requests.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the browser may take to load a page: it may try https first.
const PAGE_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn chromium_shows_sites_failure_pages_and_the_key_form() -> Result<()> {
    let Some(chromium) = devtools::find_chromium() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "chromium is missing: apt-get install chromium"
        );
        println!("skipped: chromium is missing (apt-get install chromium)");
        return Ok(());
    };
    let runtime = Runtime::new()?;
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    let setup = Setup::start(&runtime)?;
    let folder = setup.network.dir().to_owned();
    let proxy = format!("--proxy-server=http://{}", setup.onionport.port(2));
    runtime.block_on(async {
        let mut browser = Browser::start(&chromium, &folder, &proxy).await?;
        a_site_works(&mut browser, &setup, &setup.address("good")).await?;
        a_site_works(
            &mut browser,
            &setup,
            &format!("good.test:{}", setup.site_port),
        )
        .await?;
        failures_are_explained(&mut browser, &setup, &screenshots).await?;
        the_right_key_opens_the_site(&mut browser, &setup, &screenshots).await?;
        scripts_of_sites_cannot_use_our_pages(&mut browser, &setup).await?;
        the_status_page_shows_ports_and_failures(&mut browser, &screenshots).await?;
        drop(browser);
        let pac = format!(
            "--proxy-pac-url=http://{}/proxy.pac",
            setup.onionport.port(2)
        );
        let mut browser = Browser::start(&chromium, &folder, &pac).await?;
        let status = browser.open(&setup.url("good"), PAGE_LIMIT).await?;
        ensure!(status == 200, "through the PAC file: {status}");
        setup.network.mark_done();
        Ok(())
    })
}

/// The network, its services and the program.
struct Setup {
    onionport: Onionport,
    services: HashMap<&'static str, Service>,
    site_port: u16,
    /// The key for the service "locked".
    key: ClientKey,
    keys: PathBuf,
    network: Network,
}

impl Setup {
    fn start(runtime: &Runtime) -> Result<Setup> {
        let network = network_builder().spare_relays(6).start()?;
        let site = site::start(runtime)?;
        let key = ClientKey::generate();
        let start = |name: &str| {
            network.service(ServiceOptions {
                authorized: match name {
                    "locked" => vec![key.public()],
                    _ => Vec::new(),
                },
                intro_points_on_spare_relays: name == "silent",
                ..ServiceOptions::with_port(80, site)
            })
        };
        let names = ["good", "damaged", "gone", "frozen", "locked", "silent"];
        let services = run_in_parallel(names, |name| Ok((name, start(name).context(name)?)))?;
        let services: HashMap<_, _> = services.into_iter().collect();
        network.corrupt_descriptor(
            &services["damaged"],
            Corruption::Signature,
            Where::EveryHsDir,
        )?;
        services["gone"].kill();
        services["frozen"].freeze()?;
        network.freeze_relays(&services["silent"].introduction_points()?)?;
        let keys = network.dir().join("browser-keys");
        std::fs::create_dir(&keys)?;
        make_private(&keys)?;
        let settings = format!(
            "client_onion_auth_dir = {:?}\nhttp_port = \"auto\"",
            keys.display().to_string()
        );
        let onionport = start_proxy(&network, LIMIT, &settings)?;
        Ok(Setup {
            onionport,
            services,
            site_port: site.port(),
            key,
            keys,
            network,
        })
    }

    fn address(&self, name: &str) -> String {
        self.services[name].address().to_owned()
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/", self.services[name].address())
    }
}

/// A page with an image, a form, a download and a WebSocket.
async fn a_site_works(browser: &mut Browser, setup: &Setup, host: &str) -> Result<()> {
    let begun = Instant::now();
    let url = format!("http://{host}/");
    let status = browser.open(&url, PAGE_LIMIT).await?;
    ensure!(status == 200, "{url}: {status}");
    ensure!(browser.page_text().await?.contains(site::HEADING));
    let width = browser
        .run_script("document.getElementById('image').naturalWidth")
        .await?;
    ensure!(width == json!(120), "the image is {width} wide");
    let echoed = browser
        .run_script(
            "new Promise((yes, no) => { const s = new WebSocket('ws://' + location.host + '/socket'); \
             s.onopen = () => s.send('to and fro'); s.onmessage = e => yes(e.data); \
             s.onerror = () => no('broken'); })",
        )
        .await?;
    ensure!(
        echoed == json!("to and fro"),
        "the WebSocket received {echoed}"
    );
    let downloads = browser.profile_folder().join("downloads");
    let behavior = json!({
        "behavior": "allow", "downloadPath": downloads, "eventsEnabled": true
    });
    browser
        .call("Browser.setDownloadBehavior", behavior)
        .await?;
    browser
        .run_script("document.getElementById('download').click()")
        .await?;
    browser
        .wait_for_event(PAGE_LIMIT, "the download", |event, parameters| {
            event == "Browser.downloadProgress" && parameters["state"] == "completed"
        })
        .await?;
    let size = std::fs::metadata(downloads.join("file.bin"))?.len();
    ensure!(size == site::DOWNLOAD as u64, "the file has {size} bytes");
    std::fs::remove_file(downloads.join("file.bin"))?;
    let send =
        "document.getElementById('word').value = 'a&b'; document.getElementById('send').click()";
    ensure!(browser.follow(send, PAGE_LIMIT).await? == 200);
    let got = browser.page_text().await?;
    ensure!(got.trim() == "word=a%26b", "the form gave {got}");
    println!(
        "a site on {}: {:.1?}",
        if host.ends_with("onion") {
            "an onion service"
        } else {
            "an exit"
        },
        begun.elapsed()
    );
    let log = setup.onionport.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Each failure page shows its code, the explanation and a link to try again.
async fn failures_are_explained(
    browser: &mut Browser,
    setup: &Setup,
    screenshots: &Path,
) -> Result<()> {
    let good = setup.address("good");
    let cases = [
        (
            "f0",
            setup.network.unpublished_address(),
            Failure::DescriptorNotFound,
            503,
        ),
        (
            "f1",
            setup.address("damaged"),
            Failure::DescriptorInvalid,
            503,
        ),
        (
            "f2",
            setup.address("gone"),
            Failure::IntroductionFailed,
            503,
        ),
        (
            "f3",
            setup.address("frozen"),
            Failure::RendezvousFailed,
            504,
        ),
        (
            "f4",
            setup.address("locked"),
            Failure::ClientAuthMissing,
            503,
        ),
        (
            "f6",
            addresses::bad_checksum(&good),
            Failure::AddressInvalid,
            400,
        ),
        (
            "f7",
            setup.address("silent"),
            Failure::IntroductionTimedOut,
            504,
        ),
        ("port", format!("{good}:81"), Failure::StreamClosed, 502),
        (
            "name",
            "none.test".to_owned(),
            Failure::NameNotResolved,
            503,
        ),
    ];
    for (name, host, failure, expected) in cases {
        let begun = Instant::now();
        let status = browser
            .open(&format!("http://{host}/?a=b"), PAGE_LIMIT)
            .await?;
        let row = failure.row();
        let text = browser.page_text().await?;
        println!("{name}: {status}, {:.1?}", begun.elapsed());
        ensure!(status == expected, "{name}: {status}\n{text}");
        let code = format!("{:02X} · {}", row.extended, row.name);
        ensure!(
            text.contains(&code) && text.contains(row.sentence),
            "{name}: {text}"
        );
        ensure!(text.contains("Try again"), "{name}: {text}");
        browser.take_screenshots(screenshots, name).await?;
        if failure == Failure::IntroductionFailed {
            browser
                .run_script("document.querySelector('summary').click()")
                .await?;
            browser.take_screenshots(screenshots, "f2-steps").await?;
        }
    }
    Ok(())
}

/// Goes from the failure page through the form to the site: first with a malformed and a wrong key, then with the right
/// one. The site redirects the browser to another site, as many do: the pages in between must not prevent it.
async fn the_right_key_opens_the_site(
    browser: &mut Browser,
    setup: &Setup,
    screenshots: &Path,
) -> Result<()> {
    let end = setup.url("good");
    let start = format!("{}away?{end}", setup.url("locked"));
    let status = browser.open(&start, PAGE_LIMIT).await?;
    ensure!(status == 503, "{status}");
    let enter =
        "[...document.querySelectorAll('a')].find(a => a.textContent.startsWith('Enter')).click()";
    ensure!(browser.follow(enter, PAGE_LIMIT).await? == 200);
    browser.take_screenshots(screenshots, "key").await?;
    let submit = |key: &str| {
        format!(
            "document.getElementById('key').value = '{key}'; document.querySelector('button').click()"
        )
    };
    let status = browser.follow(&submit("no key at all"), PAGE_LIMIT).await?;
    let text = browser.page_text().await?;
    ensure!(
        status == 422 && text.contains("This is not a key"),
        "{status} {text}"
    );
    browser.take_screenshots(screenshots, "key-refused").await?;
    // A valid key that the service does not know.
    let label = setup.address("locked").replace(".onion", "");
    let wrong = ClientKey::generate().private_file(&label);
    let saved = browser.follow(&submit(&wrong), PAGE_LIMIT).await?;
    ensure!(saved == 200, "{saved}");
    let status = browser.wait_for_page(PAGE_LIMIT).await?;
    let text = browser.page_text().await?;
    let code = "F5 · client authorization wrong";
    ensure!(status == 403 && text.contains(code), "{status} {text}");
    browser.take_screenshots(screenshots, "f5").await?;
    ensure!(browser.follow(enter, PAGE_LIMIT).await? == 200);
    let right = setup.key.private_file(&label);
    let secret = right
        .rsplit(':')
        .next()
        .context("no key in the file")?
        .to_ascii_lowercase();
    let saved = browser.follow(&submit(&secret), PAGE_LIMIT).await?;
    ensure!(saved == 200, "{saved}");
    let status = browser.wait_for_page(PAGE_LIMIT).await?;
    let text = browser.page_text().await?;
    ensure!(
        status == 200 && text.contains(site::HEADING),
        "{status} {text}"
    );
    let url = browser.run_script("location.href").await?;
    ensure!(url == json!(end), "arrived at {url}");
    // The key, and the key that it has replaced.
    let files = std::fs::read_dir(&setup.keys)?.count();
    ensure!(files == 2, "{files} files");
    Ok(())
}

/// Scripts of a site can neither read nor submit the pages of the program.
async fn scripts_of_sites_cannot_use_our_pages(browser: &mut Browser, setup: &Setup) -> Result<()> {
    ensure!(browser.open(&setup.url("good"), PAGE_LIMIT).await? == 200);
    for script in [
        "fetch('http://onionport.invalid/').then(r => r.text())",
        "fetch('http://onionport.invalid/', {mode: 'no-cors'}).then(r => r.type + ' answer')",
        "fetch('http://onionport.invalid/key', {method: 'POST', body: new URLSearchParams('token=1&key=2')}).then(r => r.text())",
        "new Promise((yes, no) => { const s = document.createElement('script'); s.src = 'http://onionport.invalid/proxy.pac'; \
         s.onload = () => yes('loaded'); s.onerror = () => no('refused'); document.head.append(s); })",
        "new Promise((yes, no) => { const f = document.createElement('iframe'); f.src = 'http://onionport.invalid/'; \
         f.onload = () => { try { yes(f.contentDocument.body.innerText + '!') } catch (e) { no('closed') } }; document.body.append(f); })",
    ] {
        let outcome = browser
            .run_script(&format!(
                "({script}).then(v => 'got ' + v, e => 'refused: ' + e)"
            ))
            .await?;
        let outcome = outcome.as_str().unwrap_or_default().to_owned();
        ensure!(outcome.starts_with("refused"), "{script}: {outcome}");
    }
    let files = std::fs::read_dir(&setup.keys)?.count();
    ensure!(files == 2, "{files} files");
    Ok(())
}

async fn the_status_page_shows_ports_and_failures(
    browser: &mut Browser,
    screenshots: &Path,
) -> Result<()> {
    ensure!(
        browser
            .open("http://onionport.invalid/", PAGE_LIMIT)
            .await?
            == 200
    );
    let text = browser.page_text().await?;
    for part in [
        "Connected to the Tor network",
        "F3",
        "F5",
        "http 127.0.0.1:",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    ensure!(!text.contains(".onion"), "{text}");
    browser.take_screenshots(screenshots, "status").await
}
