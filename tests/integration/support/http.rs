//! HTTP as bytes. Tests write out what they send; this module parses what they receive.

use super::client::{Client, End};

/// A parsed response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The status line.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The state of the connection after the body: `Closed` if the body lasted until the end of the
    /// connection.
    pub end: End,
}

impl Response {
    /// Returns the value of a header; `None` if it is absent. Panics if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} occurs twice: {self:?}");
        value
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Reads one head, including the empty line.
pub async fn read_head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let (byte, end) = client.read(1).await;
        let so_far = String::from_utf8_lossy(&head);
        assert!(!byte.is_empty(), "incomplete head ({end:?}): {so_far:?}");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

/// Reads the response to a request with `method`. Responses to HEAD and successful responses to CONNECT
/// have no body.
pub async fn read_response_to(method: &str, client: &mut Client) -> Response {
    let head = read_head(client).await;
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().expect("a status line").to_owned();
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let mut response = Response {
        status: status.expect("a status"),
        line,
        headers,
        body: Vec::new(),
        end: End::Open,
    };
    let has_no_body = matches!(response.status, 100..200 | 204 | 304)
        || method == "HEAD"
        || (method == "CONNECT" && response.status == 200);
    if !has_no_body {
        if let Some(length) = response.header("content-length") {
            let length = length.parse().expect("a length");
            (response.body, response.end) = client.read(length).await;
        } else if response.header("transfer-encoding").is_some() {
            response.body = read_chunked_body(client).await;
        } else {
            (response.body, response.end) = client.read_to_end().await;
        }
    }
    response
}

/// Reads the response to a GET request.
pub async fn read_response(client: &mut Client) -> Response {
    read_response_to("GET", client).await
}

/// Reads a chunked body that has no trailers.
async fn read_chunked_body(client: &mut Client) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let (byte, end) = client.read(1).await;
            assert!(!byte.is_empty(), "incomplete chunk ({end:?}): {body:?}");
            line.extend(byte);
        }
        let size = std::str::from_utf8(&line).expect("text").trim();
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            client.expect_bytes(b"\r\n").await;
            return body;
        }
        body.extend(client.read(size).await.0);
        client.expect_bytes(b"\r\n").await;
    }
}

/// Sends text in which each LF becomes CR LF.
pub async fn send_text(client: &mut Client, text: &str) {
    client
        .send_bytes(text.replace('\n', "\r\n").as_bytes())
        .await;
}

/// Asserts that the next bytes are `text`, in which each LF becomes CR LF.
pub async fn expect_text(client: &mut Client, text: &str) {
    let expected = text.replace('\n', "\r\n");
    let (got, end) = client.read(expected.len()).await;
    let got = String::from_utf8_lossy(&got);
    assert_eq!(got, expected, "({end:?})");
}
