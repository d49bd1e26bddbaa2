//! Who waits for whom, and for how long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::SITE;
use crate::support::client::Client;
use crate::support::http::{answer, head, hear, say};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

/// How long a silent site or client is waited for.
const SILENCE: Duration = Duration::from_secs(120);

/// A client that has asked a site, which has read the head of it.
async fn asked(ask: &str) -> (Port, Client, Client, Served) {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (client, served) = port.http_client_with(16 * 1024, V4);
    let mut client = client.patient();
    say(&mut client, ask).await;
    let mut site = port.tor.far_end().await.patient();
    head(&mut site).await;
    (port, client, site, served)
}

/// A request of this method, with these headers.
fn ask(method: &str, headers: &str) -> String {
    format!("{method} http://good.example/ HTTP/1.1\nHost: good.example\n{headers}\n")
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_the_body_that_was_held_back_arrives_whole() {
    for status in ["401 Unauthorized", "413 Content Too Large", "307 Moved"] {
        for how in ["Content-Length: 12", "Transfer-Encoding: chunked"] {
            let post = ask("POST", "Content-Length: 4\nExpect: 100-continue\n");
            let (port, mut client, mut site, _served) = asked(&post).await;
            say(&mut site, &format!("HTTP/1.1 {status}\n{how}\n\n")).await;
            for part in ["some", "more", "text"] {
                sleep(Duration::from_millis(50)).await;
                let part = match how.starts_with("Content") {
                    true => part.to_owned(),
                    false => format!("4\n{part}\n"),
                };
                say(&mut site, &part).await;
            }
            if !how.starts_with("Content") {
                say(&mut site, "0\n\n").await;
            }
            let got = answer(&mut client).await;
            assert!(got.line.ends_with(status), "{got:?}");
            assert_eq!(got.text(), "somemoretext", "{status} {how}");
            // Nobody knows what would come next on either connection.
            assert_eq!(got.header("connection"), Some("close"));
            client.expect_end().await;
            site.expect_end().await;
            assert_eq!(port.tor.calls().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_answer_arrives_that_a_site_gives_in_the_middle_of_a_body() {
    let post = ask("POST", "Content-Length: 3000000\n");
    let (_port, mut client, mut site, _served) = asked(&post).await;
    // Until all buffers are full: there is always more to write.
    let chunk = [b'x'; 1000];
    loop {
        let sending = client.try_send(&chunk);
        if tokio::time::timeout(Duration::from_millis(300), sending)
            .await
            .is_err()
        {
            break;
        }
    }
    let chunks = "4\nsome\n".repeat(50);
    say(
        &mut site,
        &format!("HTTP/1.1 413 Content Too Large\nTransfer-Encoding: chunked\n\n{chunks}0\n\n"),
    )
    .await;
    drop(site);
    let got = answer(&mut client).await;
    assert_eq!((got.status, got.text()), (413, "some".repeat(50).as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_held_back_only_with_expect_100_continue() {
    let heads = [
        ("", Duration::ZERO),
        ("Expect: a-miracle\n", Duration::ZERO),
        ("Expect: 100-continue\n", Duration::from_secs(5)),
    ];
    for (header, expected) in heads {
        let post = ask("POST", &format!("Content-Length: 4\n{header}"));
        let (_port, mut client, mut site, _served) = asked(&post).await;
        let begun = Instant::now();
        say(&mut client, "body").await;
        hear(&mut site, "body").await;
        let waited = begun.elapsed();
        let late = expected + Duration::from_millis(100);
        assert!((expected..late).contains(&waited), "{header}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_site_is_waited_for_two_minutes() {
    let (_port, mut client, mut site, _served) = asked(&ask("GET", "Accept: text/html\n")).await;
    let begun = Instant::now();
    let got = answer(&mut client).await;
    assert_eq!(got.line, "HTTP/1.1 504 Gateway Timeout (no answer in time)");
    assert!(
        got.text()
            .contains("The site accepted the request and did not answer.")
    );
    let waited = begun.elapsed();
    assert!(waited >= SILENCE && waited < SILENCE + Duration::from_secs(1));
    site.expect_end().await;
    // Programs are told, too; a script in a browser is not. What is safe is not asked again.
    let (port, mut client, mut site, _served) = asked(&ask("GET", "")).await;
    let got = answer(&mut client).await;
    assert_eq!(got.status, 504);
    let token = got.header("tor-request-failed");
    assert_eq!(token, Some("onionport/ANSWER-TIMED-OUT"));
    site.expect_end().await;
    assert_eq!(port.tor.calls().len(), 1);
    let (port, mut client, mut site, served) =
        asked(&ask("GET", "User-Agent: Mozilla/5.0\n")).await;
    client.expect_end().await;
    site.expect_end().await;
    drop(client);
    served.end().await;
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_works_or_is_still_being_told_is_not_silent() {
    let post = ask("POST", "Content-Length: 5\n");
    let (_port, mut client, mut site, _served) = asked(&post).await;
    for letter in ["a", "b", "c", "d", "e"] {
        sleep(SILENCE - Duration::from_secs(20)).await;
        say(&mut client, letter).await;
        hear(&mut site, letter).await;
    }
    for _ in 0..3 {
        sleep(SILENCE - Duration::from_secs(20)).await;
        say(&mut site, "HTTP/1.1 102 Processing\n\n").await;
        hear(&mut client, "HTTP/1.1 102 Processing\n\n").await;
    }
    sleep(SILENCE - Duration::from_secs(20)).await;
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 3\n\n").await;
    // How long the answer itself takes, is between the two.
    head(&mut client).await;
    sleep(SILENCE * 3).await;
    say(&mut site, "yes").await;
    hear(&mut client, "yes").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_on_with_its_body_is_left() {
    let post = ask("POST", "Content-Length: 100\nAccept: text/html\n");
    let (_port, mut client, mut site, served) = asked(&post).await;
    say(&mut client, "begin").await;
    hear(&mut site, "begin").await;
    let begun = Instant::now();
    site.expect_end().await;
    let waited = begun.elapsed();
    assert!(waited >= SILENCE && waited < SILENCE + Duration::from_secs(1));
    client.expect_end().await;
    drop(client);
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_stop_its_body_to_hear_the_answer() {
    let post = ask("POST", "Content-Length: 100\n");
    let (_port, mut client, mut site, served) = asked(&post).await;
    say(&mut client, "begin").await;
    hear(&mut site, "begin").await;
    say(
        &mut site,
        "HTTP/1.1 413 Content Too Large\nContent-Length: 6\n\nno",
    )
    .await;
    head(&mut client).await;
    hear(&mut client, "no").await;
    sleep(SILENCE * 3).await;
    say(&mut site, ", no").await;
    hear(&mut client, ", no").await;
    // But then it has to go on.
    site.expect_end().await;
    client.expect_end().await;
    drop(client);
    served.end().await;
}
