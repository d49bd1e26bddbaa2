//! Where a user hands in a key for an onion service that asks for one.
//!
//! The page with the failure is shown as a page of the onion service: scripts of that service can
//! read it, and could send any form that stands in it. So the form is not there. The page only links
//! to `http://onionport.invalid/key/<ticket>`, a site that is ours alone: nobody else can own the
//! name, its pages never come from the network (nor do those of names that look like it), and a
//! browser lets no other site read them, frame them, or install a script below them. There stands
//! the form. It goes to `http://onionport.invalid/key`, whose answer leads back to the address that
//! was asked for first.
//!
//! | who | could try | and fails because |
//! |---|---|---|
//! | the onion service itself | read the ticket out of its failure page, and post it | a ticket opens the form and no more; what is posted has to carry the form's own token, which that service cannot read |
//! | any site | post a form to the address of ours | its `Origin` (or `Referer`) is not ours; and it has no token |
//! | any site | show our form in a frame, so that the user types into it | frames are forbidden |
//! | any site | ask whether there is a key | no answer of ours can be read, embedded or told from another by a foreign site; `/key` answers alike whether or not there is one |
//! | any site | cause failures without end, so that a user's form is forgotten | a client has one ticket for each service, their number is limited for each client, and none costs a token |
//! | another client of the port | use a ticket or token it has got hold of | both are bound to the client's address, port group and isolation |
//! | another computer, where the port lets it in | hand in a key | keys are taken over loopback addresses and unix sockets alone |
//! | anybody | post a token twice | it is gone with the first use |
//! | anybody | send the user elsewhere afterwards | the way back is kept here, not in the form |
//!
//! Requests straight to the port (with a loopback `Host`) never get here: [`super::status_page`]. What an
//! onion service does learn, from its own failure page, is which of F4 and F5 it has caused; and any
//! site can see by `fetch` with `no-cors` whether an onion service lets this client in, and so whether
//! there is a key for one that asks for keys: that comes with any proxy that holds keys.
//!
//! Programs of this computer's other users reach a port on a loopback address, too, and nothing tells
//! them from the user: with such a port they are trusted to hand in keys (never to read any). Where
//! they are not, the remedy is a unix socket in a folder of one's own.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use askama::Template;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tracing::{debug, info, warn};

use super::answer::{Asked, our_url};
use super::page::{self, Links};
use super::request_kind::credentials;
use super::{Body, Session};
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::ClientAddr;
use crate::tor::client_auth::{KeyFolder, NewKey};
use crate::tor::connector::Connector;
use crate::tor::isolation::Secret;
use crate::tor::onion_address::OnionAddress;
use form::{fields, from_our_form, read_form};
use tokens::{FormToken, TokenOwner, TokenStore};

mod form;
mod tokens;

/// The longest text of a key: a whole line of a key file, and some room.
const MAX_KEY: usize = 256;

/// How often it is logged what became of a key: a program may send the form again and again.
static KEPT: LogLimiter = LogLimiter::burst(Duration::from_secs(60), 5);
static NOT_KEPT: LogLimiter = LogLimiter::burst(Duration::from_secs(60), 5);

/// Takes keys, if there is a folder for them.
#[derive(Debug, Default)]
pub struct ClientAuthForm {
    folder: ArcSwap<Option<KeyFolder>>,
    tokens: Mutex<Both>,
}

/// Apart, because sites can cause tickets without end: no form that a user has before them may
/// lose its token to these.
#[derive(Debug, Default)]
struct Both {
    /// Open the form; may be used again, as a page is loaded again.
    tickets: TokenStore,
    /// Send it; good for once.
    tokens: TokenStore,
}

impl ClientAuthForm {
    /// Saves keys in another folder from now on, or takes none any more.
    pub fn set_folder(&self, folder: Option<KeyFolder>) {
        self.folder.store(Arc::new(folder));
    }

    /// A desk that keeps keys in `folder`; without one it takes none.
    pub fn new(folder: Option<KeyFolder>) -> ClientAuthForm {
        ClientAuthForm {
            folder: ArcSwap::from_pointee(folder),
            tokens: Mutex::default(),
        }
    }

    /// Whether there is a place for keys.
    pub(super) fn has_folder(&self) -> bool {
        self.folder.load().is_some()
    }

    fn tokens(&self) -> MutexGuard<'_, Both> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Template)]
#[template(path = "key.html", config = "src/inbound/http/askama.toml")]
struct KeyPage<'a> {
    nonce: &'a str,
    service: String,
    action: String,
    token: &'a str,
    url: &'a str,
    max: usize,
    /// What was wrong with the last try.
    problem: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "kept.html", config = "src/inbound/http/askama.toml")]
struct KeptPage<'a> {
    nonce: &'a str,
    url: &'a str,
}

impl<T: Connector> Session<T> {
    /// Whether the client is on this computer: others may be let in to use the network, but they
    /// have no business with its user's keys.
    pub(super) fn is_near(&self) -> bool {
        match self.origin {
            ClientAddr::Ip(IpAddr::V6(ip)) => ip.to_canonical().is_loopback(),
            ClientAddr::Ip(ip) => ip.is_loopback(),
            ClientAddr::Unix => true,
        }
    }

    /// Where this client can hand in a key for `service`; `None` if keys are kept nowhere, or not
    /// taken from this client.
    pub(super) fn key_link(&self, service: OnionAddress, asked: &Asked) -> Option<String> {
        let client_auth_form = &self.client_auth_form;
        if !client_auth_form.has_folder() || !self.is_near() {
            return None;
        }
        let ticket = client_auth_form.tokens().tickets.issue(FormToken {
            whose: self.whose(asked.credentials.clone()),
            service,
            url: asked.url.clone(),
        });
        Some(our_url(&format!("/key/{ticket}")))
    }

    fn whose(&self, credentials: Option<Secret>) -> TokenOwner {
        TokenOwner {
            origin: self.origin,
            group: self.dispatcher.group,
            credentials,
        }
    }

    /// Answers a request below `http://onionport.invalid/key`.
    pub(super) async fn at_desk(&self, request: Request<Incoming>) -> Response<Body> {
        let client_auth_form = &self.client_auth_form;
        let Some(folder) = (**client_auth_form.folder.load()).clone() else {
            return out_of_date();
        };
        if !self.is_near() {
            return elsewhere();
        }
        let whose = self.whose(credentials(request.headers()));
        if request.method() == Method::GET {
            let ticket = request.uri().path().strip_prefix("/key/");
            let slip =
                ticket.and_then(|t| client_auth_form.tokens().tickets.look(t, &whose).cloned());
            return match slip {
                Some(slip) => self.form(slip, StatusCode::OK, None),
                None => out_of_date(),
            };
        }
        if request.method() != Method::POST || request.uri().path() != "/key" {
            return out_of_date();
        }
        if !from_our_form(request.headers()) {
            // Any site can have that said, and as often as it likes.
            debug!("refused a key: the form was not sent from our own page");
            return foreign();
        }
        let Some(form) = read_form(request.into_body()).await else {
            return out_of_date();
        };
        let (token, text) = fields(&form);
        drop(form);
        let Some(slip) = token.and_then(|t| client_auth_form.tokens().tokens.take(&t, &whose))
        else {
            return out_of_date();
        };
        let key = match NewKey::read(&text.unwrap_or_default(), slip.service) {
            Ok(key) => key,
            Err(problem) => {
                return self.form(slip, StatusCode::UNPROCESSABLE_ENTITY, Some(&problem));
            }
        };
        let saved = tokio::task::spawn_blocking(move || folder.save(&key)).await;
        let problem = match saved {
            Ok(Ok(())) => {
                if let Some(times) = KEPT.due() {
                    info!(
                        "a client authorization key was entered and kept{}",
                        Occurrences(times)
                    );
                }
                return kept(&slip.url);
            }
            Ok(Err(problem)) => {
                if NOT_KEPT.due().is_some() {
                    problem.log();
                }
                problem.to_string()
            }
            Err(broken) => {
                warn!("cannot keep a client authorization key: {broken}");
                broken.to_string()
            }
        };
        let told = format!("The key could not be kept: {problem}");
        self.form(slip, StatusCode::INTERNAL_SERVER_ERROR, Some(&told))
    }

    /// The form, with a token of its own.
    fn form(&self, slip: FormToken, status: StatusCode, problem: Option<&str>) -> Response<Body> {
        let client_auth_form = &self.client_auth_form;
        let token = client_auth_form.tokens().tokens.issue(slip.clone());
        let nonce = page::nonce();
        let page = KeyPage {
            nonce: &nonce,
            service: slip.service.to_string(),
            action: our_url("/key"),
            token: &token,
            url: &slip.url,
            max: MAX_KEY,
            problem,
        };
        page::html(status, &page, &nonce, Links::Form)
    }
}

fn out_of_date() -> Response<Body> {
    page::note(
        StatusCode::NOT_FOUND,
        "This link is out of date",
        "Open the onion service again: its page leads here anew.",
    )
}

fn foreign() -> Response<Body> {
    page::note(
        StatusCode::FORBIDDEN,
        "This was not sent from here",
        "Keys are taken only from the form on this site.",
    )
}

fn elsewhere() -> Response<Body> {
    page::note(
        StatusCode::FORBIDDEN,
        "Not from this computer",
        "Keys can be entered on the computer that runs onionport.",
    )
}

/// Sends the browser on, by a page: a redirect would have to end where our form may lead, and sites
/// redirect to others.
fn kept(url: &str) -> Response<Body> {
    let nonce = page::nonce();
    let page = KeptPage { nonce: &nonce, url };
    page::html(StatusCode::OK, &page, &nonce, Links::No)
}
