//! What a client wants to reach, checked before the network is asked.
//!
//! A wrong onion address needs no network to be refused, and no name that was meant for an onion
//! service may ever reach an exit relay.

use std::net::IpAddr;

use crate::failure::Failure;
use crate::request::Address;
use crate::tor::onion_address::OnionAddress;

/// The name of our own pages, for clients of an HTTP port. Nobody can own a name below `.invalid`
/// (RFC 6761 section 6.4).
pub(crate) const OUR_HOST: &str = "onionport.invalid";

/// Whether a host looks like ours: no spelling of it and no name below it gets to an exit, which
/// could answer with pages that look like ours.
pub(crate) fn is_near_ours(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let end = host.len().checked_sub(OUR_HOST.len());
    end.and_then(|end| host.get(end..).map(|tail| (&host[..end], tail)))
        .is_some_and(|(front, tail)| {
            tail.eq_ignore_ascii_case(OUR_HOST) && (front.is_empty() || front.ends_with('.'))
        })
}

/// A destination that passed every check that needs no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An onion service.
    Onion(OnionAddress),
    /// A host name for an exit to resolve, without trailing dot or brackets.
    Name(String),
    /// An IP address for an exit to connect to.
    Ip(IpAddr),
}

impl Target {
    /// Reads the address as the client wrote it.
    ///
    /// Gives [`Failure::AddressInvalid`] for anything that ends in `.onion` (or `.onion.`) and is
    /// no address of an onion service, [`Failure::DestinationInvalid`] for `.exit` names, and
    /// [`Failure::NameNotResolved`] for the name of our own pages, which are on no network.
    pub fn parse(address: &Address) -> Result<Target, Failure> {
        let name = match address {
            Address::Ip(ip) => return Ok(Target::Ip(*ip)),
            Address::Name(name) => &**name,
        };
        let bare = name.strip_suffix('.').unwrap_or(name);
        if has_suffix(bare, "onion") {
            // A dot behind `.onion` makes C tor send the name to an exit; nobody means that.
            if bare.len() != name.len() {
                return Err(Failure::AddressInvalid);
            }
            return OnionAddress::parse(bare).map(Target::Onion);
        }
        if has_suffix(bare, "exit") {
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
        if is_near_ours(bare) {
            return Err(Failure::NameNotResolved);
        }
        Ok(Target::Name(bare.to_ascii_lowercase()))
    }
}

/// Whether the last label of `name` is `suffix`, whatever its case. A name that is nothing but the
/// suffix counts: it was meant as one.
fn has_suffix(name: &str, suffix: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(suffix))
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
    fn a_good_address_is_read_whatever_its_case_and_subdomains() {
        let Ok(Target::Onion(plain)) = name(GOOD) else {
            panic!("not read")
        };
        assert_eq!(plain.to_string(), GOOD);
        assert_eq!(name(&GOOD.to_ascii_uppercase()), Ok(Target::Onion(plain)));
        assert_eq!(name(&format!("www.mail.{GOOD}")), Ok(Target::Onion(plain)));
    }

    #[test]
    fn no_exit_is_asked_for_our_own_pages() {
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
    fn every_way_to_mistype_an_onion_address_is_invalid() {
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
    fn names_for_exits_lose_their_trailing_dot_and_addresses_their_brackets() {
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
    fn exit_notation_is_no_destination() {
        assert_eq!(
            name("example.com.relay.exit"),
            Err(Failure::DestinationInvalid)
        );
    }
}
