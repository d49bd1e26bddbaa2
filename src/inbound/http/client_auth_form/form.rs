//! The form with the key, as browsers send it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, ORIGIN, REFERER};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::super::answer::our_url;

/// The longest form, in bytes.
const MAX_FORM: usize = 4096;
/// How long a form may take to arrive.
const FORM_PATIENCE: Duration = Duration::from_secs(20);

/// Whether the browser says that the form stood on a page of ours. It says so in `Origin`; those
/// that leave it out have to name the page (`Referer`).
pub(super) fn from_our_form(headers: &HeaderMap) -> bool {
    let ours = our_url("");
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    let urlencoded = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
    let mut origins = headers.get_all(ORIGIN).iter();
    urlencoded
        && match (origins.next(), origins.next()) {
            (Some(origin), None) => origin == ours.as_str(),
            (Some(_), Some(_)) => false,
            (None, _) => headers.get(REFERER).is_some_and(|page| {
                page.to_str().is_ok_and(|page| {
                    page.strip_prefix(ours.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
                })
            }),
        }
}

/// The form as it was sent; `None` if it is too long, or too slow.
///
/// The copy is wiped when it is dropped. hyper's read buffer cannot be.
pub(super) async fn read_form(body: Incoming) -> Option<Zeroizing<Vec<u8>>> {
    timeout(FORM_PATIENCE, collect(body)).await.ok()?
}

async fn collect(mut body: Incoming) -> Option<Zeroizing<Vec<u8>>> {
    // A buffer that grows would leave copies behind.
    let mut form = Zeroizing::new(Vec::with_capacity(MAX_FORM));
    while let Some(frame) = body.frame().await {
        // Trailers say nothing.
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

/// The value of a field, wiped when it is dropped.
type Field = Zeroizing<String>;

/// The two fields of the form, token and key.
pub(super) fn fields(form: &[u8]) -> (Option<Field>, Option<Field>) {
    let (mut token, mut key) = (None, None);
    for field in form.split(|byte| *byte == b'&') {
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        match name {
            b"token" => token = decoded(value),
            b"key" => key = decoded(value),
            _ => {}
        }
    }
    (token, key)
}

/// A value of a form (URL standard, "application/x-www-form-urlencoded").
fn decoded(value: &[u8]) -> Option<Field> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (hex, behind) = behind.split_at_checked(2)?;
                rest = behind;
                *data_encoding::HEXLOWER_PERMISSIVE
                    .decode(hex)
                    .ok()?
                    .first()?
            }
            byte => *byte,
        });
    }
    // Checked first, since the error would take the bytes away unwiped.
    str::from_utf8(&bytes).ok()?;
    String::from_utf8(std::mem::take(&mut *bytes))
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_counts_only_if_the_browser_says_it_is_ours() {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let origin = |origin| ("origin", origin);
        let cases: [(&[(&str, &str)], bool); 12] = [
            (&[kind, origin("http://onionport.invalid")], true),
            (&[("referer", "http://onionport.invalid/key/1"), kind], true),
            (&[kind], false),
            (&[kind, origin("null")], false),
            (&[kind, origin("https://onionport.invalid")], false),
            (
                &[kind, origin("http://onionport.invalid.evil.example")],
                false,
            ),
            (
                &[
                    kind,
                    origin("http://evil.example"),
                    ("referer", "http://onionport.invalid/"),
                ],
                false,
            ),
            (
                &[kind, ("referer", "http://onionport.invalid.evil.example/")],
                false,
            ),
            (
                &[
                    kind,
                    ("referer", "http://evil.example/http://onionport.invalid/"),
                ],
                false,
            ),
            (
                &[
                    kind,
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
                    kind,
                    origin("http://onionport.invalid"),
                    origin("http://evil.example"),
                ],
                false,
            ),
        ];
        for (all, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.append(*name, value.parse().expect("a value"));
            }
            assert_eq!(from_our_form(&headers), expected, "{all:?}");
        }
    }

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let (token, key) = fields(b"token=ab12&key=x%3Ad+e%0D%0A&more&other=1");
        assert_eq!(token.as_deref().map(String::as_str), Some("ab12"));
        assert_eq!(key.as_deref().map(String::as_str), Some("x:d e\r\n"));
        assert_eq!(fields(b"key=%4&token=%zz"), (None, None));
        assert_eq!(fields(b"key=%ff"), (None, None));
    }

    #[test]
    fn our_own_host_is_what_the_checks_expect() {
        assert_eq!(our_url(""), "http://onionport.invalid");
    }
}
