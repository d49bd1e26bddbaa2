//! The destination of a request, parsed and checked before the Tor network is used.
//!
//! A wrong onion address is refused without the network, and no name that was meant for an onion
//! service ever reaches an exit.

use std::net::IpAddr;

use crate::failure::Failure;
use crate::request::Address;
use crate::tor::onion_address::OnionAddress;

/// The host name of the program's own pages, for clients of an HTTP port. Nobody can own a name below
/// `.invalid` (RFC 6761 section 6.4).
pub(crate) const OWN_HOST: &str = "onionport.invalid";

/// Whether a host is [`OWN_HOST`], in any spelling, or a name below it. Such a name must not get to an
/// exit, which could answer with pages that look like the program's own.
pub(crate) fn is_own_host_or_below(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let end = host.len().checked_sub(OWN_HOST.len());
    end.and_then(|end| host.get(end..).map(|tail| (&host[..end], tail)))
        .is_some_and(|(front, tail)| {
            tail.eq_ignore_ascii_case(OWN_HOST) && (front.is_empty() || front.ends_with('.'))
        })
}

/// A destination that passed every check that needs no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An onion service.
    Onion(OnionAddress),
    /// A host name for an exit to resolve, in lower case, without trailing dot or brackets.
    Name(String),
    /// An IP address for an exit to connect to.
    Ip(IpAddr),
}

impl Target {
    /// Parses the address as the client wrote it.
    ///
    /// # Errors
    /// [`Failure::AddressInvalid`] for a name that ends in `.onion` or `.onion.` and is not the address of
    /// an onion service, [`Failure::DestinationInvalid`] for `.exit` names and the empty name, and
    /// [`Failure::NameNotResolved`] for [`OWN_HOST`], which is on no network.
    pub(crate) fn parse(address: &Address) -> Result<Target, Failure> {
        let name = match address {
            Address::Ip(ip) => return Ok(Target::Ip(*ip)),
            Address::Name(name) => &**name,
        };
        let bare = name.strip_suffix('.').unwrap_or(name);
        if has_last_label(bare, "onion") {
            // With a dot behind `.onion`, C tor sends the name to an exit. Nobody wants that.
            if bare.len() != name.len() {
                return Err(Failure::AddressInvalid);
            }
            return OnionAddress::parse(bare).map(Target::Onion);
        }
        if has_last_label(bare, "exit") {
            return Err(Failure::DestinationInvalid);
        }
        let unbracketed = bare
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(bare);
        if let Ok(ip) = unbracketed.parse::<IpAddr>() {
            return Ok(Target::Ip(ip));
        }
        if bare.is_empty() {
            return Err(Failure::DestinationInvalid);
        }
        if is_own_host_or_below(bare) {
            return Err(Failure::NameNotResolved);
        }
        Ok(Target::Name(bare.to_ascii_lowercase()))
    }
}

/// Whether the last label of `name` is `label`, in any case. The label alone counts too.
fn has_last_label(name: &str, label: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real address: the Tor Project's website.
    const GOOD: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    fn name(name: &str) -> Result<Target, Failure> {
        Target::parse(&Address::Name(name.into()))
    }

    #[test]
    fn an_onion_address_is_parsed_in_any_case_and_with_subdomains() {
        let Ok(Target::Onion(plain)) = name(GOOD) else {
            panic!("not parsed")
        };
        assert_eq!(plain.to_string(), GOOD);
        assert_eq!(name(&GOOD.to_ascii_uppercase()), Ok(Target::Onion(plain)));
        assert_eq!(name(&format!("www.mail.{GOOD}")), Ok(Target::Onion(plain)));
    }

    #[test]
    fn our_own_host_is_not_sent_to_an_exit() {
        for ours in [
            "onionport.invalid",
            "OnionPort.INVALID.",
            "www.onionport.invalid",
        ] {
            assert_eq!(name(ours), Err(Failure::NameNotResolved), "{ours}");
        }
        for other in ["notonionport.invalid", "onionport.invalid.example"] {
            assert_eq!(name(other), Ok(Target::Name(other.to_owned())));
        }
    }

    #[test]
    fn a_mistyped_onion_address_is_invalid() {
        let label = &GOOD[..56];
        let flipped = format!("3{}", &GOOD[1..]);
        let cases = [
            flipped,
            format!("{}.onion", &label[..55]),
            format!("{label}aa.onion"),
            format!("{label}aaaa.onion"),
            "duskgytldkxiuqc6.onion".to_owned(),
            format!("{}1.onion", &label[..55]),
            format!("{GOOD}."),
            format!(".{GOOD}"),
            format!("www..{GOOD}"),
            "onion".to_owned(),
            ".onion".to_owned(),
            "a_b.onion".to_owned(),
        ];
        for case in cases {
            assert_eq!(name(&case), Err(Failure::AddressInvalid), "{case}");
        }
    }

    #[test]
    fn a_trailing_dot_and_brackets_are_removed() {
        assert_eq!(name("Example.COM."), Ok(Target::Name("example.com".into())));
        assert_eq!(name("a_b.example"), Ok(Target::Name("a_b.example".into())));
        assert_eq!(
            name("[::1]"),
            Ok(Target::Ip("::1".parse().expect("literal")))
        );
        assert_eq!(
            name("192.0.2.1"),
            Ok(Target::Ip("192.0.2.1".parse().expect("literal")))
        );
    }

    #[test]
    fn a_name_that_chooses_an_exit_is_refused() {
        assert_eq!(
            name("example.com.relay.exit"),
            Err(Failure::DestinationInvalid)
        );
    }
}
