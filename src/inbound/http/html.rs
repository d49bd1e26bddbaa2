//! HTML responses: rendering, and the headers that confine a page.
//!
//! Pages are self-contained: no scripts, no external resources, and a Content-Security-Policy that
//! allows neither. The templates escape everything that comes from a request. The empty icon keeps
//! browsers from requesting `/favicon.ico` from a site that cannot be reached.

use askama::Template;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use hyper::{Response, StatusCode};
use tracing::error;

use super::body::{Body, full};
use super::response;

/// Where a page may send a form.
pub(super) enum FormPolicy {
    /// Nowhere.
    Forbidden,
    /// To the page's own host.
    OwnHost,
}

/// A page with a heading and one sentence.
#[derive(Template)]
#[template(path = "notice.html", config = "src/inbound/http/askama.toml")]
struct NoticePage<'a> {
    nonce: &'a str,
    title: &'a str,
    text: &'a str,
}

/// Returns a page with a heading and one sentence.
pub(super) fn notice(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    let nonce = new_nonce();
    let page = NoticePage {
        nonce: &nonce,
        title,
        text,
    };
    render(status, &page, &nonce, FormPolicy::Forbidden)
}

/// Returns a random value that permits one style sheet (Content-Security-Policy `nonce-`).
pub(super) fn new_nonce() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<u128>().to_be_bytes())
}

/// Renders a page; `nonce` is the one in its style sheet.
pub(super) fn render(
    status: StatusCode,
    page: &impl Template,
    nonce: &str,
    forms: FormPolicy,
) -> Response<Body> {
    let text = match page.render() {
        Ok(text) => text,
        Err(problem) => {
            error!("cannot render a page: {problem}");
            let text = "the page could not be rendered";
            return response::text(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
    };
    let (form_action, referrer) = match forms {
        FormPolicy::Forbidden => ("'none'", "no-referrer"),
        // With `no-referrer` browsers would not report which page the form was sent from.
        FormPolicy::OwnHost => ("'self'", "same-origin"),
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; \
         frame-ancestors 'none'; form-action {form_action}"
    );
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    response::protect(headers);
    let content_type = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
    let policy = HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    response
}
