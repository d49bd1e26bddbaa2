//! Why a forwarded request got no usable response, and how the client is notified.

use hyper::StatusCode;

use crate::failure::Failure;

/// Why a forwarded request got no usable response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SiteError {
    /// No stream to the site could be opened.
    Failure(Failure),
    /// The connection ended before a response arrived.
    Closed,
    /// No response arrived in time.
    TimedOut,
    /// The response is not valid HTTP, or a proxy must not forward it (407, unrequested 101, unsupported
    /// transfer coding).
    InvalidResponse,
}

impl SiteError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            SiteError::Failure(failure) => {
                StatusCode::from_u16(failure.row().http).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            SiteError::Closed | SiteError::InvalidResponse => StatusCode::BAD_GATEWAY,
            SiteError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The short name, as in the failure table.
    pub(super) fn name(self) -> &'static str {
        match self {
            SiteError::Failure(failure) => failure.name(),
            SiteError::Closed => "no answer",
            SiteError::TimedOut => "no answer in time",
            SiteError::InvalidResponse => "answer not understood",
        }
    }

    /// The code before the name: that of the failure, or `HTTP`.
    pub(super) fn code(self) -> String {
        match self {
            SiteError::Failure(failure) => failure_code(failure),
            SiteError::Closed | SiteError::TimedOut | SiteError::InvalidResponse => {
                "HTTP".to_owned()
            }
        }
    }

    /// The token in `Tor-Request-Failed`, which distinguishes onionport's 502 from a site's.
    pub(super) fn token(self) -> &'static str {
        match self {
            SiteError::Failure(failure) => failure.row().token,
            SiteError::Closed => "onionport/NO-ANSWER",
            SiteError::TimedOut => "onionport/ANSWER-TIMED-OUT",
            SiteError::InvalidResponse => "onionport/BAD-ANSWER",
        }
    }

    /// One sentence on what happened.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            SiteError::Failure(failure) => failure.row().sentence,
            SiteError::Closed => "The site closed the connection without an answer.",
            SiteError::TimedOut => "The site accepted the request and did not answer.",
            SiteError::InvalidResponse => "The site's answer is invalid or cannot be forwarded.",
        }
    }
}

/// Returns the extended SOCKS code of a failure as two hexadecimal digits.
pub(super) fn failure_code(failure: Failure) -> String {
    format!("{:02X}", failure.row().extended)
}
