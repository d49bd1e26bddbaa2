//! Valid and invalid onion addresses (rend-spec-v3, 6). Every public function returns a name that ends in `.onion`.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;
use rand::{Rng, RngCore};
use sha3::{Digest, Sha3_256};

/// Length of a version 3 address without `.onion`.
const V3_LENGTH: usize = 56;

/// Returns the valid address of a new random key, for which no descriptor was ever published.
pub fn unpublished() -> String {
    encode(
        &SigningKey::from_bytes(&OsRng.r#gen())
            .verifying_key()
            .to_bytes(),
        3,
    )
}

/// Returns `address` with a wrong checksum.
///
/// # Panics
/// Like all functions here that take an address: if it is not a version 3 address.
pub fn bad_checksum(address: &str) -> String {
    let mut bytes = decode(address);
    bytes[32] ^= 0xff;
    format!("{}.onion", base32(&bytes))
}

/// Returns `address` without its last character.
pub fn too_short(address: &str) -> String {
    format!("{}.onion", &label(address)[..V3_LENGTH - 1])
}

/// Returns `address` with `aa` appended: 58 characters, of which the first 56 are valid. Some programs ignore the rest and
/// connect.
pub fn too_long_alias(address: &str) -> String {
    format!("{}aa.onion", label(address))
}

/// Returns an address in the form of version 2: 16 random base32 characters.
pub fn version_two() -> String {
    let mut bytes = [0; 10];
    OsRng.fill_bytes(&mut bytes);
    format!("{}.onion", base32(&bytes))
}

/// Returns the address of the same key with version 4 and the checksum for that version.
pub fn wrong_version(address: &str) -> String {
    encode(&public_key(address), 4)
}

/// Returns an address with a valid version and checksum, whose key is not a point of the curve.
pub fn not_a_point() -> String {
    let public_key = std::iter::repeat_with(|| OsRng.r#gen::<[u8; 32]>())
        .find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none())
        .expect("half of all strings are not points");
    encode(&public_key, 3)
}

/// Returns an address with a valid version and checksum, whose key is that of `address` plus a point of small order.
pub fn torsion(address: &str) -> String {
    let point = CompressedEdwardsY(public_key(address))
        .decompress()
        .expect("the key of an address is a point");
    encode(&(point + EIGHT_TORSION[1]).compress().to_bytes(), 3)
}

/// Returns the address of an ed25519 public key with the given version and a matching checksum.
pub(crate) fn encode(public_key: &[u8; 32], version: u8) -> String {
    let checksum = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(public_key)
        .chain_update([version])
        .finalize();
    let bytes = [&public_key[..], &checksum[..2], &[version]].concat();
    format!("{}.onion", base32(&bytes))
}

/// Returns the ed25519 public key in an address.
pub(crate) fn public_key(address: &str) -> [u8; 32] {
    decode(address)[..32]
        .try_into()
        .expect("an address holds 35 bytes")
}

/// Returns the address without `.onion`.
fn label(address: &str) -> &str {
    let label = address.strip_suffix(".onion").unwrap_or(address);
    assert_eq!(label.len(), V3_LENGTH, "not a version 3 address: {address}");
    label
}

/// Decodes the 35 bytes of an address: key (32), checksum (2), version (1).
fn decode(address: &str) -> Vec<u8> {
    BASE32_NOPAD
        .decode(label(address).to_ascii_uppercase().as_bytes())
        .expect("an address is base32")
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A published address, so that the checksum is not only checked against this module's own code.
    const KNOWN: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    /// Whether version and checksum are valid.
    fn is_consistent(address: &str) -> bool {
        let bytes = decode(address);
        encode(&public_key(address), bytes[34]) == address && bytes[34] == 3
    }

    fn is_point(address: &str) -> bool {
        CompressedEdwardsY(public_key(address))
            .decompress()
            .is_some()
    }

    #[test]
    fn a_known_address_is_consistent() {
        assert!(is_consistent(KNOWN) && is_point(KNOWN));
    }

    #[test]
    fn unpublished_addresses_are_valid_and_new_each_time() {
        let address = unpublished();
        assert!(is_consistent(&address) && is_point(&address));
        assert_ne!(address, unpublished());
    }

    #[test]
    fn each_invalid_address_has_exactly_its_one_fault() {
        let bad_checksum = bad_checksum(KNOWN);
        assert!(!is_consistent(&bad_checksum));
        assert_eq!(public_key(&bad_checksum), public_key(KNOWN));

        assert_eq!(too_short(KNOWN).len(), KNOWN.len() - 1);
        assert_eq!(too_long_alias(KNOWN).replace("aa.onion", ".onion"), KNOWN);
        assert_eq!(version_two().len(), 16 + ".onion".len());

        let version_four = wrong_version(KNOWN);
        assert_eq!(decode(&version_four)[34], 4);
        assert_eq!(encode(&public_key(KNOWN), 4), version_four);

        let not_a_point = not_a_point();
        assert!(is_consistent(&not_a_point) && !is_point(&not_a_point));

        let torsion = torsion(KNOWN);
        assert!(is_consistent(&torsion) && is_point(&torsion));
        let point = CompressedEdwardsY(public_key(&torsion))
            .decompress()
            .expect("the key is a point");
        assert!(!point.is_torsion_free());
        assert_ne!(torsion, KNOWN);
    }
}
