//! The page that says why a site cannot be shown.
//!
//! It is complete in itself: no script, no outside resource, and a policy that allows neither. (The
//! empty icon keeps browsers from asking the site, which cannot be reached, for one.) All
//! that comes from the request is escaped by the templates. The browser shows it as a page of the
//! site, so scripts of that site can read it: nothing stands in it that the site may not know.

use askama::Template;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use hyper::{Method, Request, Response, StatusCode};
use tracing::error;

use super::answer::{self, Asked};
use super::{Body, Session, full};
use crate::failure::Failure;
use crate::request::address_map::Rewritten;
use crate::request::target::Target;
use crate::tor::connector::Connector;
use crate::tor::onion_address::OnionAddress;
use messages::{Told, told};

mod messages;

/// Why there is no answer of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection to it.
    Failure(Failure),
    /// The connection ended before there was an answer.
    Lost,
    /// There was no answer in time.
    Silent,
    /// What the site said is no HTTP, or contradicts itself.
    Nonsense,
}

impl Trouble {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Trouble::Failure(failure) => {
                StatusCode::from_u16(failure.row().http).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            Trouble::Lost | Trouble::Nonsense => StatusCode::BAD_GATEWAY,
            Trouble::Silent => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Trouble::Failure(failure) => failure.name(),
            Trouble::Lost => "no answer",
            Trouble::Silent => "no answer in time",
            Trouble::Nonsense => "answer not understood",
        }
    }

    fn code(self) -> String {
        match self {
            Trouble::Failure(failure) => code(failure),
            Trouble::Lost | Trouble::Silent | Trouble::Nonsense => "HTTP".to_owned(),
        }
    }

    /// For `Tor-Request-Failed`: without it nobody could tell our 502 from one of the site's.
    fn token(self) -> &'static str {
        match self {
            Trouble::Failure(failure) => failure.row().token,
            Trouble::Lost => "onionport/NO-ANSWER",
            Trouble::Silent => "onionport/ANSWER-TIMED-OUT",
            Trouble::Nonsense => "onionport/BAD-ANSWER",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Trouble::Failure(failure) => failure.row().sentence,
            Trouble::Lost => {
                "The site took the request and ended the connection without an answer."
            }
            Trouble::Silent => "The site took the request and did not answer.",
            Trouble::Nonsense => "The site answered with something that is not proper HTTP.",
        }
    }
}

/// The code of a failure, as a person writes it.
pub(super) fn code(failure: Failure) -> String {
    format!("{:02X}", failure.row().extended)
}

#[derive(Template)]
#[template(path = "failure.html", config = "src/inbound/http/askama.toml")]
struct FailurePage<'a> {
    nonce: &'a str,
    told: &'a Told,
    code: &'a str,
    name: &'a str,
    sentence: &'a str,
    place: &'a str,
    url: &'a str,
    places: [Place; 3],
    /// Where a key can be entered.
    key: Option<String>,
    /// Whether there is a key already.
    replaces: bool,
    /// Whether a key would help, and is not taken from this client.
    elsewhere: bool,
    /// Whether a key would help, and there is no place to keep it.
    unconfigured: bool,
    /// Whether the address can simply be opened again.
    retry: bool,
    steps: Vec<Step>,
    status: u16,
    token: &'a str,
}

/// One of the three on the way from the user to the site.
struct Place {
    name: &'static str,
    class: &'static str,
}

/// One step of the way.
struct Step {
    text: &'static str,
    class: &'static str,
}

#[derive(Template)]
#[template(path = "note.html", config = "src/inbound/http/askama.toml")]
struct NotePage<'a> {
    nonce: &'a str,
    title: &'a str,
    text: &'a str,
}

impl<T: Connector> Session<T> {
    /// The answer to a request whose destination is none.
    pub(super) fn failed<B>(&self, failure: Failure, request: &Request<B>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return answer::tunnel_failed(failure);
        }
        self.page(Trouble::Failure(failure), Asked::of(request, None))
    }

    /// Says why there is no answer: as a page to those who show it, else as text.
    pub(super) fn page(&self, trouble: Trouble, asked: Asked) -> Response<Body> {
        let mut answer = match asked.html {
            true => self.html_page(trouble, &asked),
            false => {
                let (code, name) = (trouble.code(), trouble.name());
                let text = format!("{code} {name}: {}", trouble.sentence());
                answer::short(trouble.status(), &text)
            }
        };
        match trouble {
            Trouble::Failure(failure) => answer::set_tokens(answer.headers_mut(), failure),
            _ => answer::set_token(answer.headers_mut(), trouble.token()),
        }
        answer::name_it(&mut answer, trouble.name());
        answer
    }

    fn html_page(&self, trouble: Trouble, asked: &Asked) -> Response<Body> {
        let nonce = nonce();
        let service = self.meant(asked);
        let onion = match service {
            Ok(service) => service.is_some(),
            Err(_) => asked.is_onion(),
        };
        let told = told(trouble, onion);
        let replaces = trouble == Trouble::Failure(Failure::ClientAuthWrong);
        let wants_key = replaces || trouble == Trouble::Failure(Failure::ClientAuthMissing);
        let key = match (wants_key, service) {
            (true, Ok(Some(service))) => self.key_link(service, asked),
            _ => None,
        };
        let unconfigured = wants_key && !self.client_auth_form.has_folder();
        let page = FailurePage {
            nonce: &nonce,
            told: &told,
            code: &trouble.code(),
            name: trouble.name(),
            sentence: trouble.sentence(),
            place: &asked.place,
            url: &asked.url,
            places: told.side.places(onion),
            elsewhere: wants_key && !unconfigured && !self.is_near(),
            unconfigured,
            key,
            replaces,
            retry: asked.method == Method::GET,
            steps: messages::steps(trouble, onion),
            status: trouble.status().as_u16(),
            token: trouble.token(),
        };
        html(trouble.status(), &page, &nonce, Links::No)
    }

    /// The onion service that was asked for, perhaps by a name that stands for it; `None` if it is
    /// something else. The error is that of a destination that is none.
    fn meant(&self, asked: &Asked) -> Result<Option<OnionAddress>, Failure> {
        let request = asked.request.as_ref().ok_or(Failure::DestinationInvalid)?;
        let names = self.dispatcher.shared.address_map.load();
        let meant = match names.rewrite(request, &self.dispatcher.rules.flags)? {
            Rewritten::Request(request) => Target::parse(&request.address)?,
            Rewritten::Answer(_) => return Ok(None),
        };
        Ok(match meant {
            Target::Onion(service) => Some(service),
            Target::Name(_) | Target::Ip(_) => None,
        })
    }
}

/// A page of a heading and a sentence.
pub(super) fn note(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    let nonce = nonce();
    let page = NotePage {
        nonce: &nonce,
        title,
        text,
    };
    html(status, &page, &nonce, Links::No)
}

/// What a page may do besides being read.
pub(super) enum Links {
    /// Nothing.
    No,
    /// Send its form to us.
    Form,
}

/// A value that lets one style sheet through.
pub(super) fn nonce() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<u128>().to_be_bytes())
}

/// An answer that is a page.
pub(super) fn html(
    status: StatusCode,
    page: &impl Template,
    nonce: &str,
    links: Links,
) -> Response<Body> {
    let text = match page.render() {
        Ok(text) => text,
        Err(problem) => {
            error!("cannot write a page: {problem}");
            return answer::short(StatusCode::INTERNAL_SERVER_ERROR, "no page could be made");
        }
    };
    let (form, referrer) = match links {
        Links::No => ("'none'", "no-referrer"),
        // Without a referrer of our own, browsers would say nothing of where the form was sent from.
        Links::Form => ("'self'", "same-origin"),
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; \
         frame-ancestors 'none'; form-action {form}"
    );
    let mut answer = Response::new(full(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    answer::protect(headers);
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static(referrer));
    let policy = HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    answer
}
