//! Onion addresses, right ones and wrong ones. Every function gives a name that ends in `.onion`.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;
use rand::{Rng, RngCore};
use sha3::{Digest, Sha3_256};

/// Length of a version 3 address without `.onion`.
const V3_LENGTH: usize = 56;

/// The valid address of a key made this moment, which therefore nobody ever published.
pub fn unpublished() -> String {
    encode(
        &SigningKey::from_bytes(&OsRng.r#gen())
            .verifying_key()
            .to_bytes(),
        3,
    )
}

/// `address` with a checksum that does not match.
///
/// # Panics
/// Like all functions here that take an address: if it is no version 3 address.
pub fn bad_checksum(address: &str) -> String {
    let mut bytes = decode(address);
    bytes[32] ^= 0xff;
    format!("{}.onion", base32(&bytes))
}

/// `address` without its last character.
pub fn too_short(address: &str) -> String {
    format!("{}.onion", &label(address)[..V3_LENGTH - 1])
}

/// `address` with `aa` appended: 58 characters, of which the first 56 are right. Some programs connect all the same.
pub fn too_long_alias(address: &str) -> String {
    format!("{}aa.onion", label(address))
}

/// Sixteen random base32 characters: the shape of a version 2 address.
pub fn version_two() -> String {
    let mut bytes = [0; 10];
    OsRng.fill_bytes(&mut bytes);
    format!("{}.onion", base32(&bytes))
}

/// The key of `address` with version 4 and the checksum that belongs to it.
pub fn wrong_version(address: &str) -> String {
    encode(&key(address), 4)
}

/// 56 characters with the right version and checksum, whose key is no point of the curve.
pub fn not_a_point() -> String {
    let key = std::iter::repeat_with(|| OsRng.r#gen::<[u8; 32]>())
        .find(|bytes| CompressedEdwardsY(*bytes).decompress().is_none())
        .expect("half of all strings are no points");
    encode(&key, 3)
}

/// The key of `address` plus a point of small order, with the right version and checksum.
pub fn torsion(address: &str) -> String {
    let point = CompressedEdwardsY(key(address))
        .decompress()
        .expect("the key of an address is a point");
    encode(&(point + EIGHT_TORSION[1]).compress().to_bytes(), 3)
}

/// The address of an ed25519 public key, with the given version and the checksum for it.
pub(crate) fn encode(key: &[u8; 32], version: u8) -> String {
    let checksum = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([version])
        .finalize();
    let bytes = [&key[..], &checksum[..2], &[version]].concat();
    format!("{}.onion", base32(&bytes))
}

/// The ed25519 public key within an address.
pub(crate) fn key(address: &str) -> [u8; 32] {
    decode(address)[..32]
        .try_into()
        .expect("an address holds 35 bytes")
}

/// The address without `.onion`.
fn label(address: &str) -> &str {
    let label = address.strip_suffix(".onion").unwrap_or(address);
    assert_eq!(label.len(), V3_LENGTH, "no version 3 address: {address}");
    label
}

/// The 35 bytes of an address: key, checksum, version.
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

    /// A well-known address: the checksum rule is checked against the world, not against ourselves.
    const KNOWN: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    /// Whether version and checksum are right.
    fn is_consistent(address: &str) -> bool {
        let bytes = decode(address);
        encode(&key(address), bytes[34]) == address && bytes[34] == 3
    }

    fn is_point(address: &str) -> bool {
        CompressedEdwardsY(key(address)).decompress().is_some()
    }

    #[test]
    fn a_known_address_is_consistent() {
        assert!(is_consistent(KNOWN) && is_point(KNOWN));
    }

    #[test]
    fn unpublished_addresses_are_valid_and_fresh() {
        let address = unpublished();
        assert!(is_consistent(&address) && is_point(&address));
        assert_ne!(address, unpublished());
    }

    #[test]
    fn each_wrong_address_is_wrong_in_its_one_way() {
        let flipped = bad_checksum(KNOWN);
        assert!(!is_consistent(&flipped));
        assert_eq!(key(&flipped), key(KNOWN));

        assert_eq!(too_short(KNOWN).len(), KNOWN.len() - 1);
        assert_eq!(too_long_alias(KNOWN).replace("aa.onion", ".onion"), KNOWN);
        assert_eq!(version_two().len(), 16 + ".onion".len());

        let version = wrong_version(KNOWN);
        assert_eq!(decode(&version)[34], 4);
        assert_eq!(encode(&key(KNOWN), 4), version);

        let off_curve = not_a_point();
        assert!(is_consistent(&off_curve) && !is_point(&off_curve));

        let twisted = torsion(KNOWN);
        assert!(is_consistent(&twisted) && is_point(&twisted));
        let point = CompressedEdwardsY(key(&twisted))
            .decompress()
            .expect("point");
        assert!(!point.is_torsion_free());
        assert_ne!(twisted, KNOWN);
    }
}
