//! Onion service addresses, version 3 (rend-spec-v3, "Encoding onion addresses").

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity as _;
use sha3::{Digest as _, Sha3_256};

use crate::failure::Failure;

/// The length of an address without `.onion`.
const ONION_LABEL_LEN: usize = 56;
/// The version byte.
const ONION_VERSION: u8 = 3;
/// The prefix of the checksum's input, before key and version.
const CHECKSUM_PREFIX: &[u8] = b".onion checksum";

/// The address of a version 3 onion service: a valid public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnionAddress([u8; 32]);

impl OnionAddress {
    /// Parses a host name that ends in `.onion`. Labels before the last two are ignored, as in C tor.
    ///
    /// # Errors
    /// [`Failure::AddressInvalid`] if length, alphabet, version or checksum is wrong, or if the key is not a
    /// curve point in the prime-order group: a point outside it would be a second address for one service.
    pub fn parse(name: &str) -> Result<OnionAddress, Failure> {
        Self::decode(name).ok_or(Failure::AddressInvalid)
    }

    fn decode(name: &str) -> Option<OnionAddress> {
        let mut labels = name.rsplit('.');
        if !labels.next()?.eq_ignore_ascii_case("onion") {
            return None;
        }
        let label = labels.next()?;
        // C tor refuses empty labels.
        if label.len() != ONION_LABEL_LEN || name.starts_with('.') || name.contains("..") {
            return None;
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(label.to_ascii_uppercase().as_bytes())
            .ok()?;
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let &[check_a, check_b, version] = rest else {
            return None;
        };
        if version != ONION_VERSION || checksum(key) != [check_a, check_b] {
            return None;
        }
        let point = CompressedEdwardsY(*key).decompress()?;
        (point.is_torsion_free() && !point.is_identity()).then_some(OnionAddress(*key))
    }

    /// The public identity key of the service.
    pub fn key(&self) -> [u8; 32] {
        self.0
    }
}

/// Returns the checksum of `key`.
fn checksum(key: &[u8; 32]) -> [u8; 2] {
    let digest = Sha3_256::new()
        .chain_update(CHECKSUM_PREFIX)
        .chain_update(key)
        .chain_update([ONION_VERSION])
        .finalize();
    [digest[0], digest[1]]
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&checksum(&self.0));
        bytes.push(ONION_VERSION);
        let mut label = data_encoding::BASE32_NOPAD.encode(&bytes);
        label.make_ascii_lowercase();
        write!(f, "{label}.onion")
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug output easily gets into logs; it must not name the service.
        f.write_str("OnionAddress([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the Tor Project's website.
    const GOOD: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    fn parse(name: &str) -> Result<OnionAddress, Failure> {
        OnionAddress::parse(name)
    }

    /// Encodes any 32 bytes with version and checksum.
    fn encode(key: [u8; 32]) -> String {
        OnionAddress(key).to_string()
    }

    #[test]
    fn a_key_that_is_not_a_curve_point_is_invalid() {
        let not_a_point = (0..=255u8)
            .map(|b| {
                let mut key = [b; 32];
                key[31] &= 0x7f;
                key
            })
            .find(|key| CompressedEdwardsY(*key).decompress().is_none())
            .expect("half of all byte strings are not a point");
        assert_eq!(parse(&encode(not_a_point)), Err(Failure::AddressInvalid));
    }

    #[test]
    fn a_second_address_for_the_same_service_is_invalid() {
        use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
        let base = ED25519_BASEPOINT_POINT.compress().to_bytes();
        assert!(parse(&encode(base)).is_ok());
        for torsion in &EIGHT_TORSION[1..] {
            let twin = (ED25519_BASEPOINT_POINT + torsion).compress().to_bytes();
            assert_eq!(parse(&encode(twin)), Err(Failure::AddressInvalid));
        }
        let identity = EIGHT_TORSION[0].compress().to_bytes();
        assert_eq!(parse(&encode(identity)), Err(Failure::AddressInvalid));
    }

    #[test]
    fn debug_output_hides_the_address() {
        let address = OnionAddress::parse(GOOD).expect("a valid address");
        assert!(!format!("{address:?}").contains(&GOOD[..10]));
    }
}
