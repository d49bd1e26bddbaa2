//! What a person sees in Chromium who goes through the HTTP port.
//!
//! Pictures of each page are left in `screenshots` below the folder for temporary files of tests
//! (`target/tmp`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use onionport::failure::Failure;
use serde_json::json;
use testnet::{ClientKey, Corruption, Network, Service, ServiceOptions, Where, addresses};
use tokio::runtime::Runtime;

use crate::daemon::Onionport;
use crate::program;
use devtools::Browser;

mod devtools;
mod site;

/// The deadline in this test.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a page may take: the browser may try https first.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn chromium_shows_sites_failures_and_the_way_to_enter_a_key() -> Result<()> {
    let Some(chromium) = devtools::find() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "chromium is missing: apt-get install chromium"
        );
        println!("skipped: chromium is missing (apt-get install chromium)");
        return Ok(());
    };
    let runtime = Runtime::new()?;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    let stage = Stage::set(&runtime)?;
    let folder = stage.network.dir().to_owned();
    let proxy = format!("--proxy-server=http://{}", stage.onionport.port(2));
    runtime.block_on(async {
        let mut browser = Browser::start(&chromium, &folder, &proxy).await?;
        a_site_works(&mut browser, &stage, &stage.good("good")).await?;
        a_site_works(
            &mut browser,
            &stage,
            &format!("good.test:{}", stage.site_port),
        )
        .await?;
        failures_are_explained(&mut browser, &stage, &pictures).await?;
        a_key_opens_the_way(&mut browser, &stage, &pictures).await?;
        nobody_else_gets_at_the_desk(&mut browser, &stage).await?;
        status_is_shown(&mut browser, &pictures).await?;
        drop(browser);
        let pac = format!(
            "--proxy-pac-url=http://{}/proxy.pac",
            stage.onionport.port(2)
        );
        let mut browser = Browser::start(&chromium, &folder, &pac).await?;
        let status = browser.open(&stage.url("good"), PATIENCE).await?;
        ensure!(status == 200, "through the file: {status}");
        stage.network.mark_done();
        Ok(())
    })
}

/// The network, its services and the program.
struct Stage {
    onionport: Onionport,
    services: HashMap<&'static str, Service>,
    site_port: u16,
    /// The key that the locked service wants.
    key: ClientKey,
    keys: PathBuf,
    network: Network,
}

impl Stage {
    fn set(runtime: &Runtime) -> Result<Stage> {
        let network = Network::builder()
            .relays(8)
            .spare_relays(6)
            .circuit_timeout_ms(Some(2500))
            .start()?;
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
        let services: Vec<Result<Service>> = std::thread::scope(|scope| {
            let threads = names.map(|name| scope.spawn(move || start(name)));
            threads
                .map(|thread| thread.join().expect("no panic"))
                .into()
        });
        let services = names
            .into_iter()
            .zip(services)
            .map(|(name, service)| Ok((name, service.with_context(|| name)?)))
            .collect::<Result<HashMap<_, _>>>()?;
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
        std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let settings = format!(
            "socks_timeout = {}\nclient_onion_auth_dir = {:?}\nhttp_port = \"auto\"",
            LIMIT.as_secs(),
            keys.display().to_string()
        );
        let onionport = Onionport::start(program(), &network, &settings)?;
        Ok(Stage {
            onionport,
            services,
            site_port: site.port(),
            key,
            keys,
            network,
        })
    }

    fn good(&self, name: &str) -> String {
        self.services[name].address().to_owned()
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/", self.services[name].address())
    }
}

/// A page with an image, a form, a download and a WebSocket.
async fn a_site_works(browser: &mut Browser, stage: &Stage, host: &str) -> Result<()> {
    let begun = Instant::now();
    let url = format!("http://{host}/");
    let status = browser.open(&url, PATIENCE).await?;
    ensure!(status == 200, "{url}: {status}");
    ensure!(browser.text().await?.contains(site::HEADING));
    let width = browser
        .run("document.getElementById('image').naturalWidth")
        .await?;
    ensure!(width == json!(120), "the image is {width} wide");
    let echoed = browser
        .run(
            "new Promise((yes, no) => { const s = new WebSocket('ws://' + location.host + '/socket'); \
             s.onopen = () => s.send('to and fro'); s.onmessage = e => yes(e.data); \
             s.onerror = () => no('broken'); })",
        )
        .await?;
    ensure!(echoed == json!("to and fro"), "the WebSocket said {echoed}");
    let downloads = browser.folder().join("downloads");
    let behavior = json!({
        "behavior": "allow", "downloadPath": downloads, "eventsEnabled": true
    });
    browser
        .call("Browser.setDownloadBehavior", behavior)
        .await?;
    browser
        .run("document.getElementById('download').click()")
        .await?;
    browser
        .event(PATIENCE, "the download", |event, told| {
            event == "Browser.downloadProgress" && told["state"] == "completed"
        })
        .await?;
    let size = std::fs::metadata(downloads.join("file.bin"))?.len();
    ensure!(size == site::DOWNLOAD as u64, "the file has {size} bytes");
    std::fs::remove_file(downloads.join("file.bin"))?;
    let send =
        "document.getElementById('word').value = 'a&b'; document.getElementById('send').click()";
    ensure!(browser.follow(send, PATIENCE).await? == 200);
    let got = browser.text().await?;
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
    let log = stage.onionport.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Every code, from a real failure.
async fn failures_are_explained(
    browser: &mut Browser,
    stage: &Stage,
    pictures: &Path,
) -> Result<()> {
    let good = stage.good("good");
    let cases = [
        (
            "f0",
            stage.network.unpublished_address(),
            Failure::DescriptorNotFound,
            503,
        ),
        ("f1", stage.good("damaged"), Failure::DescriptorInvalid, 503),
        ("f2", stage.good("gone"), Failure::IntroductionFailed, 503),
        ("f3", stage.good("frozen"), Failure::RendezvousFailed, 504),
        ("f4", stage.good("locked"), Failure::ClientAuthMissing, 503),
        (
            "f6",
            addresses::bad_checksum(&good),
            Failure::AddressInvalid,
            400,
        ),
        (
            "f7",
            stage.good("silent"),
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
            .open(&format!("http://{host}/?a=b"), PATIENCE)
            .await?;
        let row = failure.row();
        let text = browser.text().await?;
        println!("{name}: {status}, {:.1?}", begun.elapsed());
        ensure!(status == expected, "{name}: {status}\n{text}");
        let code = format!("{:02X} · {}", row.extended, row.name);
        ensure!(
            text.contains(&code) && text.contains(row.sentence),
            "{name}: {text}"
        );
        ensure!(text.contains("Try again"), "{name}: {text}");
        browser.picture(pictures, name).await?;
        if failure == Failure::IntroductionFailed {
            browser
                .run("document.querySelector('summary').click()")
                .await?;
            browser.picture(pictures, "f2-steps").await?;
        }
    }
    Ok(())
}

/// From the failure to the site: first with a wrong key, then with the right one. The site sends
/// the browser on to another, as many do: nothing on our way may forbid it.
async fn a_key_opens_the_way(browser: &mut Browser, stage: &Stage, pictures: &Path) -> Result<()> {
    let end = stage.url("good");
    let start = format!("{}away?{end}", stage.url("locked"));
    let status = browser.open(&start, PATIENCE).await?;
    ensure!(status == 503, "{status}");
    let enter =
        "[...document.querySelectorAll('a')].find(a => a.textContent.startsWith('Enter')).click()";
    ensure!(browser.follow(enter, PATIENCE).await? == 200);
    browser.picture(pictures, "key").await?;
    let hand_in = |key: &str| {
        format!(
            "document.getElementById('key').value = '{key}'; document.querySelector('button').click()"
        )
    };
    let status = browser.follow(&hand_in("no key at all"), PATIENCE).await?;
    let text = browser.text().await?;
    ensure!(
        status == 422 && text.contains("This is not a key"),
        "{status} {text}"
    );
    browser.picture(pictures, "key-refused").await?;
    // Another one's key.
    let label = stage.good("locked").replace(".onion", "");
    let wrong = ClientKey::generate().private_file(&label);
    let kept = browser.follow(&hand_in(&wrong), PATIENCE).await?;
    ensure!(kept == 200, "{kept}");
    let status = browser.arrive(PATIENCE).await?;
    let text = browser.text().await?;
    let code = "F5 · client authorization wrong";
    ensure!(status == 403 && text.contains(code), "{status} {text}");
    browser.picture(pictures, "f5").await?;
    ensure!(browser.follow(enter, PATIENCE).await? == 200);
    let right = stage.key.private_file(&label);
    let secret = right
        .rsplit(':')
        .next()
        .context("a key")?
        .to_ascii_lowercase();
    let kept = browser.follow(&hand_in(&secret), PATIENCE).await?;
    ensure!(kept == 200, "{kept}");
    let status = browser.arrive(PATIENCE).await?;
    let text = browser.text().await?;
    ensure!(
        status == 200 && text.contains(site::HEADING),
        "{status} {text}"
    );
    let here = browser.run("location.href").await?;
    ensure!(here == json!(end), "arrived at {here}");
    // The key, and the one that it has replaced.
    let files = std::fs::read_dir(&stage.keys)?.count();
    ensure!(files == 2, "{files} files");
    Ok(())
}

/// What scripts of a site can do against the page of another, and against ours.
async fn nobody_else_gets_at_the_desk(browser: &mut Browser, stage: &Stage) -> Result<()> {
    ensure!(browser.open(&stage.url("good"), PATIENCE).await? == 200);
    for script in [
        "fetch('http://onionport.invalid/').then(r => r.text())",
        "fetch('http://onionport.invalid/', {mode: 'no-cors'}).then(r => r.type + ' answer')",
        "fetch('http://onionport.invalid/key', {method: 'POST', body: new URLSearchParams('token=1&key=2')}).then(r => r.text())",
        "new Promise((yes, no) => { const s = document.createElement('script'); s.src = 'http://onionport.invalid/proxy.pac'; \
         s.onload = () => yes('loaded'); s.onerror = () => no('refused'); document.head.append(s); })",
        "new Promise((yes, no) => { const f = document.createElement('iframe'); f.src = 'http://onionport.invalid/'; \
         f.onload = () => { try { yes(f.contentDocument.body.innerText + '!') } catch (e) { no('closed') } }; document.body.append(f); })",
    ] {
        let ran = browser
            .run(&format!(
                "({script}).then(v => 'got ' + v, e => 'refused: ' + e)"
            ))
            .await?;
        let ran = ran.as_str().unwrap_or_default().to_owned();
        ensure!(ran.starts_with("refused"), "{script}: {ran}");
    }
    let files = std::fs::read_dir(&stage.keys)?.count();
    ensure!(files == 2, "{files} files");
    Ok(())
}

async fn status_is_shown(browser: &mut Browser, pictures: &Path) -> Result<()> {
    ensure!(browser.open("http://onionport.invalid/", PATIENCE).await? == 200);
    let text = browser.text().await?;
    for part in [
        "Connected to the Tor network",
        "F3",
        "F5",
        "http 127.0.0.1:",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    ensure!(!text.contains(".onion"), "{text}");
    browser.picture(pictures, "status").await
}
