//! Tickets and tokens: names that nobody can guess, and what stands behind them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::request::ClientAddr;
use crate::tor::isolation::{ClientCredentials, SessionGroup};
use crate::tor::onion_address::OnionAddress;

/// How long a ticket or token is good.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How many of a kind one client has at most; its oldest makes room.
const MAX_OF_ONE: usize = 64;
/// How many of a kind there are at most; the oldest makes room.
const MAX_SLIPS: usize = 512;

/// What stands behind a ticket or token.
#[derive(Clone, Debug)]
pub(super) struct FormToken {
    pub(super) whose: TokenOwner,
    pub(super) service: OnionAddress,
    /// The address to go back to.
    pub(super) url: String,
}

/// The client that a slip was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenOwner {
    pub(super) origin: ClientAddr,
    pub(super) group: SessionGroup,
    pub(super) credentials: Option<ClientCredentials>,
}

/// Slips of one kind. There is one for each client and service, so that the failures that a page
/// can cause by the hundred leave room for those of others.
#[derive(Debug, Default)]
pub(super) struct TokenStore(HashMap<String, (FormToken, Instant)>);

impl TokenStore {
    /// Gives the name of a slip: that of the one which the client has for the service, or a new one.
    pub(super) fn issue(&mut self, slip: FormToken) -> String {
        self.issue_at(slip, Instant::now())
    }

    fn issue_at(&mut self, slip: FormToken, now: Instant) -> String {
        self.0.retain(|_, (_, made)| good(*made));
        let same = |known: &FormToken| known.service == slip.service && known.whose == slip.whose;
        let name = self.0.iter().find(|(_, (known, _))| same(known));
        let name = name.map(|(name, _)| name.clone()).unwrap_or_else(|| {
            self.make_room(MAX_OF_ONE, |known| known.whose == slip.whose);
            self.make_room(MAX_SLIPS, |_| true);
            data_encoding::HEXLOWER.encode(&rand::random::<[u8; 20]>())
        });
        self.0.insert(name.clone(), (slip, now));
        name
    }

    /// Takes the oldest of these away, if there are `most`.
    fn make_room(&mut self, most: usize, these: impl Fn(&FormToken) -> bool) {
        let these = self.0.iter().filter(|(_, (slip, _))| these(slip));
        if these.clone().count() < most {
            return;
        }
        let oldest = these.min_by_key(|(_, (_, made))| *made);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.0.remove(&name);
        }
    }

    /// What stands behind a name, if it is this client's and still good.
    pub(super) fn look(&self, name: &str, whose: &TokenOwner) -> Option<&FormToken> {
        let (slip, made) = self.0.get(name)?;
        (slip.whose == *whose && good(*made)).then_some(slip)
    }

    /// The same, for once.
    pub(super) fn take(&mut self, name: &str, whose: &TokenOwner) -> Option<FormToken> {
        self.look(name, whose)?;
        self.0.remove(name).map(|(slip, _)| slip)
    }
}

fn good(made: Instant) -> bool {
    made.elapsed() < LIFETIME
}

#[cfg(test)]
mod tests {
    use sha3::{Digest as _, Sha3_256};

    use super::*;

    const ONE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    const TWO: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";

    fn whose(credentials: &[u8]) -> TokenOwner {
        TokenOwner {
            origin: ClientAddr::Ip([127, 0, 0, 1].into()),
            group: SessionGroup::Port(0),
            credentials: ClientCredentials::new(credentials, b""),
        }
    }

    fn slip(credentials: &[u8], address: &str) -> FormToken {
        FormToken {
            whose: whose(credentials),
            service: OnionAddress::parse(address).expect("good"),
            url: format!("http://{address}/"),
        }
    }

    /// Services, as many as anybody wants: every multiple of the base point is a key.
    fn services() -> impl Iterator<Item = OnionAddress> {
        let base = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
        std::iter::successors(Some(base), move |point| Some(point + base)).map(|point| {
            let key = point.compress().to_bytes();
            let sum = Sha3_256::digest([b".onion checksum", key.as_slice(), &[3]].concat());
            let bytes = [key.as_slice(), &sum[..2], &[3]].concat();
            let label = data_encoding::BASE32_NOPAD.encode(&bytes);
            OnionAddress::parse(&format!("{label}.onion")).expect("a good address")
        })
    }

    #[test]
    fn a_slip_is_good_for_its_client_and_taken_once() {
        let mut tokens = TokenStore::default();
        let name = tokens.issue(slip(b"a", ONE));
        assert!(tokens.look(&name, &whose(b"b")).is_none());
        assert!(tokens.take(&name, &whose(b"")).is_none());
        assert!(tokens.take("0", &whose(b"a")).is_none());
        for _ in 0..2 {
            assert!(tokens.look(&name, &whose(b"a")).is_some());
        }
        assert!(tokens.take(&name, &whose(b"a")).is_some());
        assert!(tokens.take(&name, &whose(b"a")).is_none());
    }

    #[test]
    fn a_client_has_one_for_each_service() {
        let mut tokens = TokenStore::default();
        let first = tokens.issue(slip(b"a", ONE));
        let again = tokens.issue(FormToken {
            url: "http://other/".to_owned(),
            ..slip(b"a", ONE)
        });
        assert_eq!(first, again);
        let url = &tokens.look(&first, &whose(b"a")).expect("there").url;
        assert_eq!(url, "http://other/");
        assert_ne!(first, tokens.issue(slip(b"a", TWO)));
        assert_ne!(first, tokens.issue(slip(b"b", ONE)));
        assert_eq!(tokens.0.len(), 3);
    }

    #[test]
    fn slips_grow_old() {
        let mut tokens = TokenStore::default();
        let old = Instant::now()
            .checked_sub(LIFETIME)
            .expect("a machine that is up");
        let stale = tokens.issue_at(slip(b"a", ONE), old);
        assert!(tokens.look(&stale, &whose(b"a")).is_none());
        assert_ne!(stale, tokens.issue(slip(b"a", ONE)));
        assert_eq!(tokens.0.len(), 1);
    }

    #[test]
    fn their_number_has_an_end_for_each_client_and_for_all() {
        let mut tokens = TokenStore::default();
        let of_other = tokens.issue(slip(b"b", ONE));
        let first = tokens.issue(slip(b"a", ONE));
        for service in services().take(MAX_SLIPS) {
            tokens.issue(FormToken {
                service,
                ..slip(b"a", ONE)
            });
        }
        assert_eq!(tokens.0.len(), MAX_OF_ONE + 1);
        assert!(tokens.look(&first, &whose(b"a")).is_none());
        assert!(tokens.look(&of_other, &whose(b"b")).is_some());
        for client in 0..MAX_SLIPS {
            tokens.issue(slip(format!("c{client}").as_bytes(), ONE));
        }
        assert_eq!(tokens.0.len(), MAX_SLIPS);
    }
}
