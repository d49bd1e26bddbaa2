//! The page that explains why a site cannot be shown.
//!
//! Browsers treat it as a page of the site, so the site's scripts can read it: it contains nothing that
//! the site must not know.

use askama::Template;
use hyper::{Method, Request, Response};

use super::body::Body;
use super::client_auth_form::accepts_keys_from;
use super::html::{self, FormPolicy};
use super::request_summary::RequestSummary;
use super::response;
use super::session::HttpSession;
use super::site_error::SiteError;
use crate::failure::Failure;
use crate::request::address_map::Rewritten;
use crate::request::target::Target;
use crate::tor::connector::Connector;
use crate::tor::onion_address::OnionAddress;
use messages::{FailureMessage, PathHop, ProgressStep};

mod messages;

#[derive(Template)]
#[template(path = "failure.html", config = "src/inbound/http/askama.toml")]
struct FailurePage<'a> {
    nonce: &'a str,
    message: &'a FailureMessage,
    code: &'a str,
    name: &'a str,
    sentence: &'a str,
    authority: &'a str,
    url: &'a str,
    hops: [PathHop; 3],
    /// Link to the form for a key.
    key_link: Option<String>,
    /// Whether the key would replace one.
    replaces: bool,
    /// Whether a key would help, but is not accepted from this client.
    remote_client: bool,
    /// Whether a key would help, but no folder for keys is configured.
    no_key_folder: bool,
    /// Whether a link can repeat the request.
    retry: bool,
    steps: Vec<ProgressStep>,
    status: u16,
    token: &'a str,
}

impl<T: Connector> HttpSession<T> {
    /// Returns the response to a request that failed before a stream was tried.
    pub(super) fn respond_with_failure<B>(
        &self,
        failure: Failure,
        request: &Request<B>,
    ) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return response::tunnel_failed(failure);
        }
        let summary = RequestSummary::new(request, None);
        self.error_response(SiteError::Failure(failure), summary)
    }

    /// Explains an error: as a page to clients that accept HTML, as a line of text to others.
    pub(super) fn error_response(
        &self,
        error: SiteError,
        summary: RequestSummary,
    ) -> Response<Body> {
        let mut response = match summary.accepts_html {
            true => self.failure_page(error, &summary),
            false => {
                let (code, name) = (error.code(), error.name());
                let text = format!("{code} {name}: {}", error.sentence());
                response::text(error.status(), &text)
            }
        };
        match error {
            SiteError::Failure(failure) => {
                response::set_failure_tokens(response.headers_mut(), failure);
            }
            _ => response::set_tokens(response.headers_mut(), error.token()),
        }
        response::set_reason(&mut response, error.name());
        response
    }

    fn failure_page(&self, error: SiteError, summary: &RequestSummary) -> Response<Body> {
        let nonce = html::new_nonce();
        let service = self.onion_service(summary);
        let is_onion = match service {
            Ok(service) => service.is_some(),
            Err(_) => summary.is_onion(),
        };
        let message = messages::message(error, is_onion);
        let replaces = error == SiteError::Failure(Failure::ClientAuthWrong);
        let wants_key = replaces || error == SiteError::Failure(Failure::ClientAuthMissing);
        let form = &self.client_auth_form;
        let key_link = match (wants_key, service) {
            (true, Ok(Some(service))) => {
                form.create_link(self.client, self.dispatcher.group, service, summary)
            }
            _ => None,
        };
        let no_key_folder = wants_key && !form.has_folder();
        let page = FailurePage {
            nonce: &nonce,
            message: &message,
            code: &error.code(),
            name: error.name(),
            sentence: error.sentence(),
            authority: &summary.authority,
            url: &summary.url,
            hops: message.fault.hops(is_onion),
            remote_client: wants_key && !no_key_folder && !accepts_keys_from(self.client),
            no_key_folder,
            key_link,
            replaces,
            retry: summary.method == Method::GET,
            steps: messages::progress_steps(error, is_onion),
            status: error.status().as_u16(),
            token: error.token(),
        };
        html::render(error.status(), &page, &nonce, FormPolicy::Forbidden)
    }

    /// Returns the onion service that was requested, after MapAddress and automap; `None` if the
    /// destination is something else.
    ///
    /// # Errors
    ///
    /// The failure of a destination that is not valid.
    fn onion_service(&self, summary: &RequestSummary) -> Result<Option<OnionAddress>, Failure> {
        let request = summary
            .request
            .as_ref()
            .ok_or(Failure::DestinationInvalid)?;
        let address_map = self.dispatcher.shared.address_map.load();
        let target = match address_map.rewrite(request, &self.dispatcher.rules.flags)? {
            Rewritten::Request(request) => Target::parse(&request.address)?,
            Rewritten::Answer(_) => return Ok(None),
        };
        Ok(match target {
            Target::Onion(service) => Some(service),
            Target::Name(_) | Target::Ip(_) => None,
        })
    }
}
