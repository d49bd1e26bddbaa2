//! HTTP as bytes: what is sent is written out in the tests, what comes is taken apart here.

use super::client::{Client, End};

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The first line.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How the connection ended, if the body went up to the end.
    pub end: End,
}

impl Answer {
    /// The value of a header; `None` if it is not there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(
            found.next().is_none(),
            "{name} stands there twice: {self:?}"
        );
        value
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Takes one head, up to and with the empty line.
pub async fn head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let (byte, end) = client.take(1).await;
        let so_far = String::from_utf8_lossy(&head);
        assert!(!byte.is_empty(), "no whole head ({end:?}): {so_far:?}");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

/// Takes one answer, with a body unless it is one to HEAD or CONNECT.
pub async fn answer_to(method: &str, client: &mut Client) -> Answer {
    let head = head(client).await;
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().expect("a first line").to_owned();
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let mut answer = Answer {
        status: status.expect("a status"),
        line,
        headers,
        body: Vec::new(),
        end: End::Open,
    };
    let bare = matches!(answer.status, 100..200 | 204 | 304)
        || method == "HEAD"
        || (method == "CONNECT" && answer.status == 200);
    if !bare {
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            (answer.body, answer.end) = client.take(length).await;
        } else if answer.header("transfer-encoding").is_some() {
            answer.body = chunks(client).await;
        } else {
            (answer.body, answer.end) = client.rest().await;
        }
    }
    answer
}

/// Takes one answer to GET.
pub async fn answer(client: &mut Client) -> Answer {
    answer_to("GET", client).await
}

/// Takes a body in chunks, without its trailers.
async fn chunks(client: &mut Client) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let (byte, end) = client.take(1).await;
            assert!(!byte.is_empty(), "no whole chunk ({end:?}): {body:?}");
            line.extend(byte);
        }
        let size = std::str::from_utf8(&line).expect("text").trim();
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            client.expect_bytes(b"\r\n").await;
            return body;
        }
        body.extend(client.take(size).await.0);
        client.expect_bytes(b"\r\n").await;
    }
}

/// Says what HTTP says: lines end with one feed in tests, and with two characters on the wire.
pub async fn say(client: &mut Client, text: &str) {
    client
        .send_bytes(text.replace('\n', "\r\n").as_bytes())
        .await;
}

/// The next bytes have to be these.
pub async fn hear(client: &mut Client, text: &str) {
    let expected = text.replace('\n', "\r\n");
    let (got, end) = client.take(expected.len()).await;
    let got = String::from_utf8_lossy(&got);
    assert_eq!(got, expected, "({end:?})");
}
