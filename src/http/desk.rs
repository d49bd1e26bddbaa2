//! Where a user hands in a key for an onion service that asks for one.
//!
//! The page with the failure is shown as a page of the onion service: scripts of that service can
//! read it, and could send any form that stands in it. So the form is not there. The page only links
//! to `http://onionport.invalid/key/<ticket>`, a site that is ours alone: nobody else can own the
//! name, its pages never come from the network (nor do those of names that look like it), and a
//! browser lets no other site read them, frame them, or install a script below them. There stands
//! the form. It goes to `http://onionport.invalid/key`, and back to the address that was asked for
//! first.
//!
//! | who | could try | and fails because |
//! |---|---|---|
//! | the onion service itself | read the ticket out of its failure page, and post it | a ticket opens the form and no more; what is posted has to carry the form's own token, which that service cannot read |
//! | any site | post a form to the address of ours | its `Origin` (or `Referer`) is not ours; and it has no token |
//! | any site | show our form in a frame, so that the user types into it | frames are forbidden |
//! | any site | ask whether there is a key | no answer of ours can be read, embedded or told from another by a foreign site; `/key` answers alike whether or not there is one |
//! | another client of the port | use a ticket or token it has got hold of | both are bound to the client's address, port group and isolation |
//! | anybody | post a token twice | it is gone with the first use |
//! | anybody | send the user elsewhere afterwards | the way back is kept here, not in the form |
//!
//! Requests straight to the port (with a loopback `Host`) never get here: [`super::home`]. What an
//! onion service does learn, from its own failure page, is which of F4 and F5 it has caused.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use askama::Template;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use tracing::{debug, info, warn};

use super::answer::{self, Asked, our_url};
use super::ask::credentials;
use super::page::{self, Links};
use super::{Body, Session, full};
use crate::dial::Dial;
use crate::gateway::Origin;
use crate::isolation::SessionGroup;
use crate::request::Secret;
use crate::target::OnionAddress;
use crate::tor::keys::{KeyFolder, NewKey};
use form::{fields, from_our_form, read_form};

mod form;

/// How long a ticket or token is good.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How many there are at most; the oldest makes room.
const MAX_SLIPS: usize = 512;
/// The longest text of a key: a whole line of a key file, and some room.
const MAX_KEY: usize = 256;

/// Takes keys, if there is a folder for them.
#[derive(Debug, Default)]
pub struct Desk {
    folder: Option<KeyFolder>,
    slips: Mutex<HashMap<String, Slip>>,
}

/// What stands behind a ticket or token.
#[derive(Clone, Debug)]
struct Slip {
    kind: Kind,
    whose: Whose,
    service: OnionAddress,
    /// The address to go back to.
    url: String,
    made: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Opens the form; may be used again, as a page is loaded again.
    Ticket,
    /// Sends it; good for once.
    Token,
}

/// The client that a slip was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whose {
    origin: Origin,
    group: SessionGroup,
    credentials: Option<Secret>,
}

impl Desk {
    /// A desk that keeps keys in `folder`; without one it takes none.
    pub fn new(folder: Option<KeyFolder>) -> Desk {
        Desk {
            folder,
            slips: Mutex::default(),
        }
    }

    /// Makes a slip and gives its name, which nobody can guess.
    fn issue(&self, slip: Slip) -> String {
        let name = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 20]>());
        let mut slips = self.slips();
        slips.retain(|_, slip| slip.made.elapsed() < LIFETIME);
        if slips.len() >= MAX_SLIPS {
            let oldest = slips.iter().min_by_key(|(_, slip)| slip.made);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| slips.remove(&name));
        }
        slips.insert(name.clone(), slip);
        name
    }

    /// What stands behind a name, if it is this client's and still good. A token is used up by it.
    fn redeem(&self, name: &str, kind: Kind, whose: &Whose) -> Option<Slip> {
        let mut slips = self.slips();
        let slip = slips.get(name)?;
        let good = slip.kind == kind && slip.whose == *whose && slip.made.elapsed() < LIFETIME;
        match (good, kind) {
            (false, _) => None,
            (true, Kind::Ticket) => Some(slip.clone()),
            (true, Kind::Token) => slips.remove(name),
        }
    }

    fn slips(&self) -> MutexGuard<'_, HashMap<String, Slip>> {
        self.slips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Template)]
#[template(path = "key.html", config = "src/http/askama.toml")]
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

impl<T: Dial> Session<T> {
    /// Where this client can hand in a key for `service`; `None` if keys are kept nowhere.
    pub(super) fn key_link(&self, service: OnionAddress, asked: &Asked) -> Option<String> {
        let desk = &self.gateway.shared.desk;
        desk.folder.as_ref()?;
        let ticket = desk.issue(Slip {
            kind: Kind::Ticket,
            whose: self.whose(asked.credentials.clone()),
            service,
            url: asked.url.clone(),
            made: Instant::now(),
        });
        Some(our_url(&format!("/key/{ticket}")))
    }

    fn whose(&self, credentials: Option<Secret>) -> Whose {
        Whose {
            origin: self.origin,
            group: self.gateway.group,
            credentials,
        }
    }

    /// Answers a request below `http://onionport.invalid/key`.
    pub(super) async fn at_desk(&self, request: Request<Incoming>) -> Response<Body> {
        let desk = &self.gateway.shared.desk;
        let Some(folder) = desk.folder.clone() else {
            return out_of_date();
        };
        let whose = self.whose(credentials(request.headers()));
        if request.method() == Method::GET {
            let ticket = request.uri().path().strip_prefix("/key/");
            return match ticket.and_then(|t| desk.redeem(t, Kind::Ticket, &whose)) {
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
        let Some(slip) = token.and_then(|t| desk.redeem(&t, Kind::Token, &whose)) else {
            return out_of_date();
        };
        let key = match NewKey::read(&text.unwrap_or_default(), slip.service) {
            Ok(key) => key,
            Err(problem) => {
                return self.form(slip, StatusCode::UNPROCESSABLE_ENTITY, Some(&problem));
            }
        };
        let saved = tokio::task::spawn_blocking(move || folder.save(&key)).await;
        match saved.unwrap_or_else(|broken| Err(broken.to_string())) {
            Ok(()) => {
                info!("a client authorization key was entered and kept");
                back_to(&slip.url)
            }
            Err(problem) => {
                warn!("cannot keep a client authorization key: {problem}");
                let told = format!("The key could not be kept: {problem}");
                self.form(slip, StatusCode::INTERNAL_SERVER_ERROR, Some(&told))
            }
        }
    }

    /// The form, with a token of its own.
    fn form(&self, slip: Slip, status: StatusCode, problem: Option<&str>) -> Response<Body> {
        let token = self.gateway.shared.desk.issue(Slip {
            kind: Kind::Token,
            made: Instant::now(),
            ..slip.clone()
        });
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
        page::html(status, &page, &nonce, Links::FormTo(site_of(&slip.url)))
    }
}

/// Scheme, host and port of an address that was passed on.
fn site_of(url: &str) -> &str {
    const SCHEME: usize = "http://".len();
    let end = url.get(SCHEME..).and_then(|rest| rest.find(['/', '?']));
    end.map_or(url, |end| &url[..SCHEME + end])
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

/// Sends the browser on (RFC 9110 section 15.4.4).
fn back_to(url: &str) -> Response<Body> {
    let mut answer = Response::new(full(""));
    let Ok(url) = HeaderValue::from_str(url) else {
        return out_of_date();
    };
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer::protect(answer.headers_mut());
    answer.headers_mut().insert(LOCATION, url);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(credentials: &[u8]) -> Whose {
        Whose {
            origin: Origin::Ip([127, 0, 0, 1].into()),
            group: SessionGroup::Port(0),
            credentials: Secret::new(credentials, b""),
        }
    }

    fn slip(kind: Kind) -> Slip {
        let address = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
        Slip {
            kind,
            whose: whose(b"a"),
            service: OnionAddress::parse(address).expect("good"),
            url: format!("http://{address}/"),
            made: Instant::now(),
        }
    }

    #[test]
    fn a_token_is_good_for_its_client_and_for_once() {
        let desk = Desk::default();
        let token = desk.issue(slip(Kind::Token));
        assert!(desk.redeem(&token, Kind::Token, &whose(b"b")).is_none());
        assert!(desk.redeem(&token, Kind::Token, &whose(b"")).is_none());
        assert!(desk.redeem(&token, Kind::Ticket, &whose(b"a")).is_none());
        assert!(desk.redeem("0", Kind::Token, &whose(b"a")).is_none());
        assert!(desk.redeem(&token, Kind::Token, &whose(b"a")).is_some());
        assert!(desk.redeem(&token, Kind::Token, &whose(b"a")).is_none());
    }

    #[test]
    fn a_ticket_opens_the_form_again_and_never_sends_it() {
        let desk = Desk::default();
        let ticket = desk.issue(slip(Kind::Ticket));
        assert!(desk.redeem(&ticket, Kind::Token, &whose(b"a")).is_none());
        for _ in 0..2 {
            assert!(desk.redeem(&ticket, Kind::Ticket, &whose(b"a")).is_some());
        }
    }

    #[test]
    fn slips_grow_old_and_their_number_has_an_end() {
        let desk = Desk::default();
        let old = Instant::now()
            .checked_sub(LIFETIME)
            .expect("a machine that is up");
        let stale = desk.issue(Slip {
            made: old,
            ..slip(Kind::Token)
        });
        assert!(desk.redeem(&stale, Kind::Token, &whose(b"a")).is_none());
        let first = desk.issue(slip(Kind::Token));
        for _ in 0..MAX_SLIPS {
            desk.issue(slip(Kind::Ticket));
        }
        assert_eq!(desk.slips().len(), MAX_SLIPS);
        assert!(desk.redeem(&first, Kind::Token, &whose(b"a")).is_none());
    }

    #[test]
    fn the_site_of_an_address_ends_where_its_path_begins() {
        for (url, site) in [
            ("http://a.onion/x", "http://a.onion"),
            ("http://a.onion:81?x/", "http://a.onion:81"),
            ("http://a.onion", "http://a.onion"),
        ] {
            assert_eq!(site_of(url), site);
        }
    }
}
