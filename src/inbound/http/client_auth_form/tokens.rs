//! Tickets and tokens: unguessable names, each issued to one client for one onion service.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::request::ClientAddr;
use crate::tor::isolation::{ClientCredentials, SessionGroup};
use crate::tor::onion_address::OnionAddress;

/// How long a ticket or token is valid after it was last issued.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Most entries of one owner in a store; the owner's oldest entry is dropped for a new one.
const MAX_PER_OWNER: usize = 64;
/// Most entries in a store; the oldest entry is dropped for a new one.
const MAX_TOKENS: usize = 512;

/// What a ticket or token stands for.
#[derive(Clone, Debug)]
pub(super) struct FormToken {
    pub(super) owner: TokenOwner,
    pub(super) service: OnionAddress,
    /// The URL to return to.
    pub(super) url: String,
}

/// The client that a ticket or token was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenOwner {
    pub(super) client: ClientAddr,
    pub(super) group: SessionGroup,
    pub(super) credentials: Option<ClientCredentials>,
}

/// Tickets, or tokens: at most one for each owner and service, so that the hundreds of failures that a
/// page can cause do not displace those of others.
#[derive(Debug, Default)]
pub(super) struct TokenStore(HashMap<String, (FormToken, Instant)>);

impl TokenStore {
    /// Stores `token` and returns its name: the name that its owner has for the service already, or a
    /// new one.
    pub(super) fn issue(&mut self, token: FormToken) -> String {
        self.issue_at(token, Instant::now())
    }

    fn issue_at(&mut self, token: FormToken, now: Instant) -> String {
        self.0.retain(|_, (_, issued)| is_valid(*issued));
        let same = |known: &FormToken| known.service == token.service && known.owner == token.owner;
        let name = self.0.iter().find(|(_, (known, _))| same(known));
        let name = name.map(|(name, _)| name.clone()).unwrap_or_else(|| {
            self.make_room(MAX_PER_OWNER, |known| known.owner == token.owner);
            self.make_room(MAX_TOKENS, |_| true);
            data_encoding::HEXLOWER.encode(&rand::random::<[u8; 20]>())
        });
        self.0.insert(name.clone(), (token, now));
        name
    }

    /// Drops the oldest of the entries that `filter` selects, if there are `max` or more.
    fn make_room(&mut self, max: usize, filter: impl Fn(&FormToken) -> bool) {
        let selected = self.0.iter().filter(|(_, (token, _))| filter(token));
        if selected.clone().count() < max {
            return;
        }
        let oldest = selected.min_by_key(|(_, (_, issued))| *issued);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.0.remove(&name);
        }
    }

    /// Returns what `name` stands for, if it is valid and belongs to `owner`.
    pub(super) fn get(&self, name: &str, owner: &TokenOwner) -> Option<&FormToken> {
        let (token, issued) = self.0.get(name)?;
        (token.owner == *owner && is_valid(*issued)).then_some(token)
    }

    /// Like [`get`](Self::get), but also removes it.
    pub(super) fn take(&mut self, name: &str, owner: &TokenOwner) -> Option<FormToken> {
        self.get(name, owner)?;
        self.0.remove(name).map(|(token, _)| token)
    }
}

fn is_valid(issued: Instant) -> bool {
    issued.elapsed() < LIFETIME
}

#[cfg(test)]
mod tests {
    use sha3::{Digest as _, Sha3_256};

    use super::*;

    const ONE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    const TWO: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";

    fn owner(credentials: &[u8]) -> TokenOwner {
        TokenOwner {
            client: ClientAddr::Ip([127, 0, 0, 1].into()),
            group: SessionGroup::Port(0),
            credentials: ClientCredentials::new(credentials, b""),
        }
    }

    fn token(credentials: &[u8], address: &str) -> FormToken {
        FormToken {
            owner: owner(credentials),
            service: OnionAddress::parse(address).expect("a valid address"),
            url: format!("http://{address}/"),
        }
    }

    /// Any number of services: every multiple of the base point is a public key.
    fn services() -> impl Iterator<Item = OnionAddress> {
        let base = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
        std::iter::successors(Some(base), move |point| Some(point + base)).map(|point| {
            let key = point.compress().to_bytes();
            let sum = Sha3_256::digest([b".onion checksum", key.as_slice(), &[3]].concat());
            let bytes = [key.as_slice(), &sum[..2], &[3]].concat();
            let label = data_encoding::BASE32_NOPAD.encode(&bytes);
            OnionAddress::parse(&format!("{label}.onion")).expect("a valid address")
        })
    }

    #[test]
    fn a_token_is_valid_for_its_owner_and_taken_once() {
        let mut store = TokenStore::default();
        let name = store.issue(token(b"a", ONE));
        assert!(store.get(&name, &owner(b"b")).is_none());
        assert!(store.take(&name, &owner(b"")).is_none());
        assert!(store.take("0", &owner(b"a")).is_none());
        for _ in 0..2 {
            assert!(store.get(&name, &owner(b"a")).is_some());
        }
        assert!(store.take(&name, &owner(b"a")).is_some());
        assert!(store.take(&name, &owner(b"a")).is_none());
    }

    #[test]
    fn an_owner_has_one_token_per_service() {
        let mut store = TokenStore::default();
        let first = store.issue(token(b"a", ONE));
        let again = store.issue(FormToken {
            url: "http://other/".to_owned(),
            ..token(b"a", ONE)
        });
        assert_eq!(first, again);
        let url = &store.get(&first, &owner(b"a")).expect("a token").url;
        assert_eq!(url, "http://other/");
        assert_ne!(first, store.issue(token(b"a", TWO)));
        assert_ne!(first, store.issue(token(b"b", ONE)));
        assert_eq!(store.0.len(), 3);
    }

    #[test]
    fn tokens_expire() {
        let mut store = TokenStore::default();
        let old = Instant::now()
            .checked_sub(LIFETIME)
            .expect("an instant after boot");
        let stale = store.issue_at(token(b"a", ONE), old);
        assert!(store.get(&stale, &owner(b"a")).is_none());
        assert_ne!(stale, store.issue(token(b"a", ONE)));
        assert_eq!(store.0.len(), 1);
    }

    #[test]
    fn tokens_are_limited_per_owner_and_in_total() {
        let mut store = TokenStore::default();
        let of_other_client = store.issue(token(b"b", ONE));
        let first = store.issue(token(b"a", ONE));
        for service in services().take(MAX_TOKENS) {
            store.issue(FormToken {
                service,
                ..token(b"a", ONE)
            });
        }
        assert_eq!(store.0.len(), MAX_PER_OWNER + 1);
        assert!(store.get(&first, &owner(b"a")).is_none());
        assert!(store.get(&of_other_client, &owner(b"b")).is_some());
        for client in 0..MAX_TOKENS {
            store.issue(token(format!("c{client}").as_bytes(), ONE));
        }
        assert_eq!(store.0.len(), MAX_TOKENS);
    }
}
