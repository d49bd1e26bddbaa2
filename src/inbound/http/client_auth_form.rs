//! The form for client authorization keys of onion services.
//!
//! Browsers treat the failure page as a page of the onion service, so that service's scripts can read it
//! and submit any form in it. The failure page therefore only links to
//! `http://onionport.invalid/key/<ticket>`, which has the form. That host belongs to onionport alone:
//! nobody else can own the name, neither it nor names that resemble it are ever requested from the
//! network, and browsers keep other sites from reading its pages, framing them, or installing scripts
//! there. The form is sent to `http://onionport.invalid/key`, whose response leads back to the URL that
//! was requested first.
//!
//! | attacker | attempt | defence |
//! |---|---|---|
//! | the onion service | read the ticket in its failure page, and post it | a ticket only opens the form; a post needs the form's own token, which the service cannot read |
//! | any site | post a form to onionport's host | its `Origin` (or `Referer`) is wrong, and it has no token |
//! | any site | show the form in a frame, so that the user types into it | framing is forbidden |
//! | any site | find out whether a key exists | a foreign site can neither read, embed nor distinguish onionport's responses; `/key` answers the same with and without a key |
//! | any site | cause failures until the user's form is forgotten | a client has one ticket per service, tickets are limited per client, and they never displace tokens |
//! | another client of the port | use a ticket or token it has obtained | both are bound to the client's address, port group and isolation |
//! | another computer that may use the port | enter a key | keys are accepted only over loopback addresses and Unix sockets |
//! | anyone | post a token twice | a token is deleted at its first use |
//! | anyone | send the user elsewhere afterwards | the URL to return to is stored here, not in the form |
//!
//! Requests to the port itself (with a loopback `Host`) never get here: see [`super::status_page`].
//!
//! Not prevented: an onion service learns from its own failure page whether it caused F4 or F5. Any site
//! can find out with `fetch` and `no-cors` whether an onion service admits this client, and so whether a
//! key for it exists; this is inherent in a proxy that holds keys. Programs of other users of this
//! computer can reach a port on a loopback address and enter keys (never read them); a Unix socket in a
//! private folder prevents that.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use askama::Template;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tracing::{debug, info, warn};

use super::body::Body;
use super::html::{self, FormPolicy};
use super::request_kind::credentials;
use super::request_summary::RequestSummary;
use super::response::own_url;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::ClientAddr;
use crate::tor::client_auth::{ClientAuthKey, KeyFolder};
use crate::tor::isolation::SessionGroup;
use crate::tor::onion_address::OnionAddress;
use form::{is_from_own_form, parse_form, read_form};
use tokens::{FormToken, TokenOwner, TokenStore};

mod form;
mod tokens;

/// Longest text of a key, in bytes: a line of a key file, with some room.
const MAX_KEY: usize = 256;

/// Limits log messages about keys that were saved or could not be saved: a program may send the form
/// repeatedly.
static SAVED: LogLimiter = LogLimiter::with_burst(Duration::from_secs(60), 5);
static NOT_SAVED: LogLimiter = LogLimiter::with_burst(Duration::from_secs(60), 5);

/// Accepts client authorization keys from browsers, if a folder for them is configured. All HTTP ports
/// share one.
#[derive(Debug, Default)]
pub struct ClientAuthForm {
    folder: ArcSwap<Option<KeyFolder>>,
    issued: Mutex<IssuedTokens>,
}

/// Two separate stores: sites can cause any number of tickets, which must not displace the token of a
/// form that a user is filling in.
#[derive(Debug, Default)]
struct IssuedTokens {
    /// Open the form. Reusable, because users reload pages.
    tickets: TokenStore,
    /// Submit the form. Valid once.
    tokens: TokenStore,
}

#[derive(Template)]
#[template(path = "key_form.html", config = "src/inbound/http/askama.toml")]
struct KeyFormPage<'a> {
    nonce: &'a str,
    service: String,
    action: String,
    token: &'a str,
    url: &'a str,
    max: usize,
    /// What was wrong with the key that was entered before.
    problem: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "key_saved.html", config = "src/inbound/http/askama.toml")]
struct KeySavedPage<'a> {
    nonce: &'a str,
    url: &'a str,
}

impl ClientAuthForm {
    /// Creates a form that saves keys in `folder`; with `None` it accepts no keys.
    pub fn new(folder: Option<KeyFolder>) -> ClientAuthForm {
        ClientAuthForm {
            folder: ArcSwap::from_pointee(folder),
            issued: Mutex::default(),
        }
    }

    /// Replaces the folder for keys; `None` stops accepting keys.
    pub(crate) fn set_folder(&self, folder: Option<KeyFolder>) {
        self.folder.store(Arc::new(folder));
    }

    /// Whether a folder for keys is configured.
    pub(super) fn has_folder(&self) -> bool {
        self.folder.load().is_some()
    }

    /// Returns the URL of the form in which `client` can enter a key for `service`; `None` if there is no
    /// folder for keys, or if keys are not accepted from this client.
    pub(super) fn create_link(
        &self,
        client: ClientAddr,
        group: SessionGroup,
        service: OnionAddress,
        summary: &RequestSummary,
    ) -> Option<String> {
        if !self.has_folder() || !accepts_keys_from(client) {
            return None;
        }
        let owner = TokenOwner {
            client,
            group,
            credentials: summary.credentials.clone(),
        };
        let ticket = self.issued().tickets.issue(FormToken {
            owner,
            service,
            url: summary.url.clone(),
        });
        Some(own_url(&format!("/key/{ticket}")))
    }

    /// Answers a request below `http://onionport.invalid/key`.
    pub(super) async fn respond(
        &self,
        client: ClientAddr,
        group: SessionGroup,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some(folder) = (**self.folder.load()).clone() else {
            return expired();
        };
        if !accepts_keys_from(client) {
            return remote_client();
        }
        let owner = TokenOwner {
            client,
            group,
            credentials: credentials(request.headers()),
        };
        if request.method() == Method::GET {
            let ticket = request.uri().path().strip_prefix("/key/");
            let found = ticket.and_then(|t| self.issued().tickets.get(t, &owner).cloned());
            return match found {
                Some(found) => self.form_page(found, StatusCode::OK, None),
                None => expired(),
            };
        }
        if request.method() != Method::POST || request.uri().path() != "/key" {
            return expired();
        }
        if !is_from_own_form(request.headers()) {
            // At debug level only: any site can cause this, as often as it likes.
            debug!("refused a client authorization key: not sent from onionport's own form");
            return foreign_form();
        }
        let Some(form) = read_form(request.into_body()).await else {
            return expired();
        };
        let (token, text) = parse_form(&form);
        drop(form);
        let Some(token) = token.and_then(|t| self.issued().tokens.take(&t, &owner)) else {
            return expired();
        };
        let key = match ClientAuthKey::parse(&text.unwrap_or_default(), token.service) {
            Ok(key) => key,
            Err(problem) => {
                return self.form_page(token, StatusCode::UNPROCESSABLE_ENTITY, Some(&problem));
            }
        };
        let saved = tokio::task::spawn_blocking(move || folder.save(&key)).await;
        let problem = match saved {
            Ok(Ok(())) => {
                if let Some(times) = SAVED.due() {
                    info!(
                        "saved a client authorization key that was entered in the form{}",
                        Occurrences(times)
                    );
                }
                return key_saved(&token.url);
            }
            Ok(Err(problem)) => {
                if NOT_SAVED.due().is_some() {
                    problem.log();
                }
                problem.to_string()
            }
            Err(error) => {
                warn!("cannot save a client authorization key: {error}");
                error.to_string()
            }
        };
        let problem = format!("The key could not be saved: {problem}");
        self.form_page(token, StatusCode::INTERNAL_SERVER_ERROR, Some(&problem))
    }

    /// Returns the form, with a new token.
    fn form_page(
        &self,
        contents: FormToken,
        status: StatusCode,
        problem: Option<&str>,
    ) -> Response<Body> {
        let token = self.issued().tokens.issue(contents.clone());
        let nonce = html::new_nonce();
        let page = KeyFormPage {
            nonce: &nonce,
            service: contents.service.to_string(),
            action: own_url("/key"),
            token: &token,
            url: &contents.url,
            max: MAX_KEY,
            problem,
        };
        html::render(status, &page, &nonce, FormPolicy::OwnHost)
    }

    fn issued(&self) -> MutexGuard<'_, IssuedTokens> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether keys are accepted from `client`: only from this computer. Others may be allowed to use the
/// network, but not to add keys.
pub(super) fn accepts_keys_from(client: ClientAddr) -> bool {
    match client {
        ClientAddr::Ip(IpAddr::V6(ip)) => ip.to_canonical().is_loopback(),
        ClientAddr::Ip(ip) => ip.is_loopback(),
        ClientAddr::Unix => true,
    }
}

fn expired() -> Response<Body> {
    html::notice(
        StatusCode::NOT_FOUND,
        "This link has expired",
        "Open the onion service again: its page has a new link.",
    )
}

fn foreign_form() -> Response<Body> {
    html::notice(
        StatusCode::FORBIDDEN,
        "Not sent from this site",
        "Keys are accepted only from the form on this site.",
    )
}

fn remote_client() -> Response<Body> {
    html::notice(
        StatusCode::FORBIDDEN,
        "Not from this computer",
        "Keys can be entered only on the computer that runs onionport.",
    )
}

/// Returns a page that opens `url`. It is not a redirect, because browsers apply `form-action` to the
/// whole chain of redirects, and sites redirect to other hosts.
fn key_saved(url: &str) -> Response<Body> {
    let nonce = html::new_nonce();
    let page = KeySavedPage { nonce: &nonce, url };
    html::render(StatusCode::OK, &page, &nonce, FormPolicy::Forbidden)
}
