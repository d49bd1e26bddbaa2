//! Which requests a port admits. Everything that can be refused without the Tor network is refused
//! here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::port_line::Flags;
use crate::failure::Failure;
use crate::request::target::Target;
use crate::request::{Command, Request};
use crate::tor::destination::{Family, PermittedRequest};

/// Which requests one port admits.
#[derive(Clone, Debug)]
pub struct PortRules {
    /// The flags of the port's line.
    pub flags: Flags,
    /// Whether private and local addresses may be requested from exits
    /// (`address_filter.allow_local_addrs`; C tor's `ClientRejectInternalAddresses 0`).
    pub allow_local: bool,
    /// Whether private and local addresses may be the answer to a lookup
    /// (`address_filter.allow_resolving_local_addrs`; C tor's `ClientDNSRejectInternalAddresses 0`).
    pub allow_local_answers: bool,
}

impl PortRules {
    /// Checks a request against the rules.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(crate) fn admit(&self, request: &Request) -> Result<PermittedRequest, Failure> {
        let target = Target::parse(&request.address)?;
        match request.command {
            Command::Connect => self.admit_connect(target, request.port, request.family),
            Command::Resolve => self.admit_resolve(target, request.family),
            Command::ResolvePtr => match target {
                Target::Ip(ip) if !self.allows_family_of(ip) => Err(Failure::TrafficForbidden),
                Target::Ip(ip) if !self.allow_local_answers && is_private(ip) => {
                    Err(Failure::PrivateAddress)
                }
                Target::Ip(ip) => Ok(PermittedRequest::ResolvePtr(ip)),
                Target::Onion(_) => Err(Failure::OnionNotResolvable),
                Target::Name(_) => Err(Failure::DestinationInvalid),
            },
        }
    }

    fn admit_connect(
        &self,
        target: Target,
        port: u16,
        wanted: Option<Family>,
    ) -> Result<PermittedRequest, Failure> {
        if port == 0 {
            return Err(Failure::DestinationInvalid);
        }
        match target {
            Target::Onion(service) if self.flags.onion_traffic => {
                Ok(PermittedRequest::Onion { service, port })
            }
            Target::Onion(_) => Err(Failure::TrafficForbidden),
            Target::Ip(ip) => {
                let family = match ip {
                    IpAddr::V4(_) => Family::V4Only,
                    IpAddr::V6(_) => Family::V6Only,
                };
                if !self.allows_family_of(ip) {
                    Err(Failure::TrafficForbidden)
                } else if !self.allow_local && is_private(ip) {
                    Err(Failure::PrivateAddress)
                } else {
                    Ok(PermittedRequest::Exit {
                        host: ip.to_string(),
                        port,
                        family,
                    })
                }
            }
            Target::Name(host) => {
                let family = self.admit_name(&host, wanted)?;
                Ok(PermittedRequest::Exit { host, port, family })
            }
        }
    }

    fn admit_resolve(
        &self,
        target: Target,
        wanted: Option<Family>,
    ) -> Result<PermittedRequest, Failure> {
        match target {
            Target::Ip(ip) => {
                let unwanted = match wanted {
                    Some(Family::V4Only) => ip.is_ipv6(),
                    Some(Family::V6Only) => ip.is_ipv4(),
                    Some(Family::V4Preferred | Family::V6Preferred) | None => false,
                };
                match unwanted || !self.allows_family_of(ip) {
                    true => Err(Failure::TrafficForbidden),
                    false => Ok(PermittedRequest::Literal(ip)),
                }
            }
            Target::Onion(_) => Err(Failure::OnionNotResolvable),
            Target::Name(host) => {
                let family = self.admit_name(&host, wanted)?;
                Ok(PermittedRequest::Resolve { host, family })
            }
        }
    }

    /// Whether the port carries traffic to addresses of this family.
    fn allows_family_of(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.flags.ipv4_traffic,
            IpAddr::V6(_) => self.flags.ipv6_traffic,
        }
    }

    /// Checks a name for an exit. Returns the address families that the exit may use for it: those the
    /// client accepts (`wanted`), as far as the port's flags allow them.
    fn admit_name(&self, host: &str, wanted: Option<Family>) -> Result<Family, Failure> {
        if !self.flags.dns_request {
            return Err(Failure::TrafficForbidden);
        }
        if !self.allow_local && is_local_name(host) {
            return Err(Failure::PrivateAddress);
        }
        let (v4, v6) = match wanted {
            None | Some(Family::V4Preferred | Family::V6Preferred) => (true, true),
            Some(Family::V4Only) => (true, false),
            Some(Family::V6Only) => (false, true),
        };
        let prefer_v6 = match wanted {
            None => self.flags.prefer_ipv6,
            Some(family) => family == Family::V6Preferred,
        };
        match (
            v4 && self.flags.ipv4_traffic,
            v6 && self.flags.ipv6_traffic,
            prefer_v6,
        ) {
            (true, true, false) => Ok(Family::V4Preferred),
            (true, true, true) => Ok(Family::V6Preferred),
            (true, false, _) => Ok(Family::V4Only),
            (false, true, _) => Ok(Family::V6Only),
            (false, false, _) => Err(Failure::TrafficForbidden),
        }
    }
}

/// Whether a name means this computer or its local network (RFC 6761, RFC 6762).
pub(crate) fn is_local_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost") || last.eq_ignore_ascii_case("local")
}

/// Whether an address must not be requested from exits (C tor's `tor_addr_is_internal`).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_private_v4(mapped),
            None => is_private_v6(ip),
        },
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 0
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || (a == 100 && (64..128).contains(&b))
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    /// fec0::/10, site-local: deprecated (RFC 3879), and still not public.
    const SITE_LOCAL: u16 = 0xfec0;
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.segments()[0] & 0xffc0 == SITE_LOCAL
}

/// Chooses the answer to a lookup among the addresses that an exit returned: the first of the
/// preferred family, or else of the other if the family allows it. Without `allow_local`, private
/// addresses are left out.
///
/// # Errors
/// [`Failure::NameNotResolved`] if there is no address, [`Failure::PrivateAddress`] if all are
/// private, and [`Failure::NoSuchFamily`] if none is of a wanted family.
pub(crate) fn choose_address(
    addresses: &[IpAddr],
    family: Family,
    allow_local: bool,
) -> Result<IpAddr, Failure> {
    let is_usable = |ip: &&IpAddr| allow_local || !is_private(**ip);
    let first = |v4: bool| {
        addresses
            .iter()
            .filter(is_usable)
            .find(|ip| ip.is_ipv4() == v4)
            .copied()
    };
    let chosen = match family {
        Family::V4Only => first(true),
        Family::V6Only => first(false),
        Family::V4Preferred => first(true).or_else(|| first(false)),
        Family::V6Preferred => first(false).or_else(|| first(true)),
    };
    chosen.ok_or_else(|| match addresses.iter().find(is_usable) {
        Some(_) => Failure::NoSuchFamily,
        None if addresses.is_empty() => Failure::NameNotResolved,
        None => Failure::PrivateAddress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::port_line::PortLine;
    use crate::request::Address;
    use crate::tor::isolation::Protocol;

    fn rules(flags: &str) -> PortRules {
        let line: PortLine = format!("9150 {flags}").parse().expect("a good line");
        PortRules {
            flags: line.flags,
            allow_local: false,
            allow_local_answers: false,
        }
    }

    fn request(command: Command, host: &str, port: u16) -> Request {
        let address = match host.parse() {
            Ok(ip) => Address::Ip(ip),
            Err(_) => Address::Name(host.into()),
        };
        Request {
            command,
            address,
            port,
            protocol: Protocol::Socks5,
            credentials: None,
            family: None,
        }
    }

    fn connect(flags: &str, host: &str) -> Result<PermittedRequest, Failure> {
        rules(flags).admit(&request(Command::Connect, host, 80))
    }

    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn each_kind_of_traffic_can_be_disabled() {
        let forbidden = Err(Failure::TrafficForbidden);
        assert_eq!(connect("NoIPv4Traffic", "192.0.2.1"), forbidden);
        assert!(connect("NoIPv4Traffic", "2001:db8::1").is_ok());
        assert_eq!(connect("NoIPv6Traffic", "2001:db8::1"), forbidden);
        assert_eq!(connect("NoDNSRequest", "example.com"), forbidden);
        assert!(connect("NoDNSRequest", "192.0.2.1").is_ok());
        assert_eq!(connect("NoOnionTraffic", ONION), forbidden);
        assert!(connect("OnionTrafficOnly", ONION).is_ok());
        for host in ["example.com", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(connect("OnionTrafficOnly", host), forbidden, "{host}");
        }
    }

    #[test]
    fn the_family_follows_the_flags() {
        let family = |flags| match connect(flags, "example.com") {
            Ok(PermittedRequest::Exit { family, .. }) => family,
            other => panic!("{other:?}"),
        };
        assert_eq!(family(""), Family::V4Preferred);
        assert_eq!(family("PreferIPv6"), Family::V6Preferred);
        assert_eq!(family("NoIPv6Traffic PreferIPv6"), Family::V4Only);
        assert_eq!(family("NoIPv4Traffic"), Family::V6Only);
    }

    #[test]
    fn a_client_may_narrow_the_families_that_the_port_carries() {
        let family = |flags: &str, wanted| {
            let req = Request {
                family: Some(wanted),
                ..request(Command::Connect, "example.com", 80)
            };
            match rules(flags).admit(&req) {
                Ok(PermittedRequest::Exit { family, .. }) => Some(family),
                Ok(other) => panic!("{other:?}"),
                Err(failure) => {
                    assert_eq!(failure, Failure::TrafficForbidden);
                    None
                }
            }
        };
        use Family::*;
        assert_eq!(family("PreferIPv6", V4Preferred), Some(V4Preferred));
        assert_eq!(family("", V6Preferred), Some(V6Preferred));
        assert_eq!(family("", V6Only), Some(V6Only));
        assert_eq!(family("NoIPv6Traffic", V6Preferred), Some(V4Only));
        assert_eq!(family("NoIPv6Traffic", V6Only), None);
    }

    #[test]
    fn private_destinations_are_refused() {
        let hosts = [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "localhost",
            "LOCALHOST.",
            "www.localhost",
            "printer.local",
            "local",
        ];
        for host in hosts {
            assert_eq!(connect("", host), Err(Failure::PrivateAddress), "{host}");
        }
        for host in [
            "192.0.2.1",
            "2001:db8::1",
            "local.example",
            "localhost.example",
        ] {
            assert!(connect("", host).is_ok(), "{host}");
        }
    }

    #[test]
    fn an_invalid_onion_address_is_reported_before_anything_else() {
        let bad = request(Command::Connect, "wrong.onion", 0);
        assert_eq!(
            rules("NoOnionTraffic").admit(&bad),
            Err(Failure::AddressInvalid)
        );
    }

    #[test]
    fn port_0_is_refused() {
        for host in ["example.com", "192.0.2.1", ONION] {
            let req = request(Command::Connect, host, 0);
            assert_eq!(
                rules("").admit(&req),
                Err(Failure::DestinationInvalid),
                "{host}"
            );
        }
    }

    #[test]
    fn an_onion_address_cannot_be_resolved_and_an_ip_address_is_its_own_answer() {
        let req = request(Command::Resolve, ONION, 0);
        assert_eq!(rules("").admit(&req), Err(Failure::OnionNotResolvable));
        let literal = request(Command::Resolve, "192.0.2.1", 0);
        let ip = "192.0.2.1".parse().expect("literal");
        assert_eq!(rules("").admit(&literal), Ok(PermittedRequest::Literal(ip)));
        // As in C tor, the answer must be an address that the port carries.
        let forbidden = Err(Failure::TrafficForbidden);
        for flags in ["NoIPv4Traffic", "OnionTrafficOnly"] {
            assert_eq!(rules(flags).admit(&literal), forbidden, "{flags}");
        }
        let for_other_family = Request {
            family: Some(Family::V6Only),
            ..literal
        };
        assert_eq!(rules("").admit(&for_other_family), forbidden);
    }

    #[test]
    fn answers_are_chosen_by_family_and_private_ones_left_out() {
        let answers: Vec<IpAddr> = ["10.0.0.1", "2001:db8::1", "192.0.2.1"]
            .iter()
            .map(|ip| ip.parse().expect("literal"))
            .collect();
        let pick = |family, local| choose_address(&answers, family, local).map(|ip| ip.to_string());
        assert_eq!(pick(Family::V4Preferred, false).as_deref(), Ok("192.0.2.1"));
        assert_eq!(pick(Family::V4Preferred, true).as_deref(), Ok("10.0.0.1"));
        assert_eq!(
            pick(Family::V6Preferred, false).as_deref(),
            Ok("2001:db8::1")
        );
        for (some, failure) in [
            (&answers[..0], Failure::NameNotResolved),
            (&answers[..1], Failure::PrivateAddress),
            (&answers[..2], Failure::NoSuchFamily),
        ] {
            assert_eq!(choose_address(some, Family::V4Only, false), Err(failure));
        }
    }
}
