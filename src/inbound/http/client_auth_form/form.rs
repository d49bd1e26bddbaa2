//! The submitted form: where it came from, and its fields.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, ORIGIN, REFERER};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::inbound::http::response::own_url;

/// Longest form, in bytes.
const MAX_FORM: usize = 4096;
/// How long a form may take to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(20);

/// The value of a form field, wiped when dropped.
type FormField = Zeroizing<String>;

/// Whether the browser reports that the form is on a page of onionport's own host: in `Origin` or, if
/// the browser omits that, in `Referer`.
pub(super) fn is_from_own_form(headers: &HeaderMap) -> bool {
    let own_origin = own_url("");
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    let urlencoded = headers
        .get(CONTENT_TYPE)
        .and_then(|content_type| content_type.to_str().ok())
        .is_some_and(|content_type| {
            let essence = content_type.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
    let mut origins = headers.get_all(ORIGIN).iter();
    urlencoded
        && match (origins.next(), origins.next()) {
            (Some(origin), None) => origin == own_origin.as_str(),
            (Some(_), Some(_)) => false,
            (None, _) => headers.get(REFERER).is_some_and(|page| {
                page.to_str().is_ok_and(|page| {
                    page.strip_prefix(own_origin.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
                })
            }),
        }
}

/// Reads the submitted form; returns `None` if it is too long or too slow.
///
/// The returned copy is wiped when dropped; the copy in hyper's read buffer cannot be.
pub(super) async fn read_form(body: Incoming) -> Option<Zeroizing<Vec<u8>>> {
    timeout(FORM_TIMEOUT, collect(body)).await.ok()?
}

async fn collect(mut body: Incoming) -> Option<Zeroizing<Vec<u8>>> {
    // Allocated once: a growing buffer would leave copies behind.
    let mut form = Zeroizing::new(Vec::with_capacity(MAX_FORM));
    while let Some(frame) = body.frame().await {
        // Ignore trailers.
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if data.len() > MAX_FORM - form.len() {
            return None;
        }
        form.extend_from_slice(&data);
    }
    Some(form)
}

/// Returns the values of the fields `token` and `key`.
pub(super) fn parse_form(form: &[u8]) -> (Option<FormField>, Option<FormField>) {
    let (mut token, mut key) = (None, None);
    for field in form.split(|byte| *byte == b'&') {
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        match name {
            b"token" => token = decode(value),
            b"key" => key = decode(value),
            _ => {}
        }
    }
    (token, key)
}

/// Decodes a value (URL standard, "application/x-www-form-urlencoded parsing"); returns `None` for a
/// malformed escape or invalid UTF-8.
fn decode(value: &[u8]) -> Option<FormField> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut input = value;
    while let Some((first, rest)) = input.split_first() {
        input = rest;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (hex, rest) = rest.split_at_checked(2)?;
                input = rest;
                *data_encoding::HEXLOWER_PERMISSIVE
                    .decode(hex)
                    .ok()?
                    .first()?
            }
            byte => *byte,
        });
    }
    // Checked before the conversion, whose error would take the bytes and drop them unwiped.
    str::from_utf8(&bytes).ok()?;
    String::from_utf8(std::mem::take(&mut *bytes))
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_accepted_only_if_the_browser_names_our_page_as_its_source() {
        let content_type = ("content-type", "application/x-www-form-urlencoded");
        let origin = |origin| ("origin", origin);
        let cases: [(&[(&str, &str)], bool); 12] = [
            (&[content_type, origin("http://onionport.invalid")], true),
            (
                &[("referer", "http://onionport.invalid/key/1"), content_type],
                true,
            ),
            (&[content_type], false),
            (&[content_type, origin("null")], false),
            (&[content_type, origin("https://onionport.invalid")], false),
            (
                &[
                    content_type,
                    origin("http://onionport.invalid.evil.example"),
                ],
                false,
            ),
            (
                &[
                    content_type,
                    origin("http://evil.example"),
                    ("referer", "http://onionport.invalid/"),
                ],
                false,
            ),
            (
                &[
                    content_type,
                    ("referer", "http://onionport.invalid.evil.example/"),
                ],
                false,
            ),
            (
                &[
                    content_type,
                    ("referer", "http://evil.example/http://onionport.invalid/"),
                ],
                false,
            ),
            (
                &[
                    content_type,
                    origin("http://onionport.invalid"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (
                &[
                    origin("http://onionport.invalid"),
                    ("content-type", "text/plain"),
                ],
                false,
            ),
            (
                &[
                    content_type,
                    origin("http://onionport.invalid"),
                    origin("http://evil.example"),
                ],
                false,
            ),
        ];
        for (all, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.append(*name, value.parse().expect("a header value"));
            }
            assert_eq!(is_from_own_form(&headers), expected, "{all:?}");
        }
    }

    #[test]
    fn forms_are_parsed_as_browsers_encode_them() {
        let (token, key) = parse_form(b"token=ab12&key=x%3Ad+e%0D%0A&more&other=1");
        assert_eq!(token.as_deref().map(String::as_str), Some("ab12"));
        assert_eq!(key.as_deref().map(String::as_str), Some("x:d e\r\n"));
        assert_eq!(parse_form(b"key=%4&token=%zz"), (None, None));
        assert_eq!(parse_form(b"key=%ff"), (None, None));
    }

    #[test]
    fn our_own_url_is_the_one_in_these_tests() {
        assert_eq!(own_url(""), "http://onionport.invalid");
    }
}
