//! Corrupts descriptors in the memory of the HSDirs.
//!
//! An invalid descriptor cannot be uploaded, because the HSDir checks it, but the HSDir does not check again what it serves.
//! Therefore this module finds the text in the HSDir's memory by its first line, identifies it by the service's blinded key,
//! and overwrites it in place through `/proc/PID/mem`.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use data_encoding::{BASE64, BASE64_NOPAD};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, Signer, SigningKey, VerifyingKey};
use memchr::memmem;
use rand::Rng;
use rand::rngs::OsRng;
use sha3::{Digest, Sha3_256};

use crate::network::Network;
use crate::service::Service;
use crate::torrc::{Schedule, unix_now};

/// The fault that a descriptor gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// The outer signature does not match the text.
    Signature,
    /// A keyword of the outer layer is misspelt, so that the text cannot be parsed.
    Syntax,
    /// The text can be parsed and has a valid signature by the service's own key, but the encrypted body is garbage, so that
    /// it cannot be decrypted.
    Body,
}

/// The HSDirs on which a descriptor is corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Every HSDir that has a descriptor of the service, of any time period.
    EveryHsDir,
    /// One HSDir that has the descriptor of the current time period.
    OneHsDir,
}

/// The first line of a descriptor.
const FIRST_LINE: &[u8] = b"hs-descriptor 3\n";

/// The text before the signature.
const SIGNATURE: &[u8] = b"\nsignature ";

/// Base64 characters of a signature.
const SIGNATURE_LENGTH: usize = 86;

/// The longest descriptor that an HSDir accepts, in bytes.
const LONGEST: usize = 50_000;

/// The prefix of the signed text.
const SIGNATURE_PREFIX: &[u8] = b"Tor onion service descriptor sig v3";

impl Network {
    /// Corrupts the descriptors of one service in the memory of the HSDirs, and returns the number of HSDirs changed. When the
    /// service publishes again (`restart`, `set_authorized`), its descriptors are valid again.
    ///
    /// # Errors
    /// When no HSDir has a descriptor of the service, or the memory of the relays cannot be read: that needs their user or
    /// root.
    pub fn corrupt_descriptor(
        &self,
        service: &Service,
        corruption: Corruption,
        place: Where,
    ) -> Result<usize> {
        let now = self.shared.schedule.period_number(unix_now());
        let periods = match place {
            Where::EveryHsDir => now - 1..now + 2,
            Where::OneHsDir => now..now + 1,
        };
        let keys = periods
            .map(|period| BlindedKey::derive(service, self.shared.schedule, period))
            .collect::<Result<Vec<_>>>()?;
        let mut changed = 0;
        for relay in self
            .shared
            .relays
            .iter()
            .filter(|r| r.role.is_for_clients())
        {
            let Some(pid) = relay.tor().as_ref().map(crate::process::Tor::pid) else {
                continue;
            };
            let found = corrupt_in_process(pid, &keys, corruption)
                .with_context(|| format!("cannot change the memory of {}", relay.nickname))?;
            changed += usize::from(found);
            if found && place == Where::OneHsDir {
                break;
            }
        }
        if changed == 0 {
            bail!("no HSDir has a descriptor of {}", service.address());
        }
        Ok(changed)
    }
}

/// Corrupts every copy of the descriptors of `keys` in a process, and returns whether there was one.
fn corrupt_in_process(pid: u32, keys: &[BlindedKey], corruption: Corruption) -> Result<bool> {
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut found = false;
    for region in writable_regions(&fs::read_to_string(format!("/proc/{pid}/maps"))?) {
        let mut bytes = vec![0; usize::try_from(region.end - region.start)?];
        match memory.read_exact_at(&mut bytes, region.start) {
            Ok(()) => {}
            // The mapping has been removed, or is one of the kernel's own.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::UnexpectedEof)
                    || e.raw_os_error() == Some(nix::libc::EIO) =>
            {
                continue;
            }
            Err(e) => return Err(e.into()),
        }
        for at in memmem::find_iter(&bytes, FIRST_LINE) {
            let Some(text) = whole_descriptor(&bytes[at..]) else {
                continue;
            };
            let Some(key) = keys
                .iter()
                .find(|key| blinded_key_in(text) == Some(key.public))
            else {
                continue;
            };
            let corrupted =
                corrupt(text, key, corruption).context("a descriptor has an unknown format")?;
            assert_eq!(
                corrupted.len(),
                text.len(),
                "a descriptor keeps its length in memory"
            );
            memory.write_all_at(&corrupted, region.start + u64::try_from(at)?)?;
            found = true;
        }
    }
    Ok(found)
}

/// Parses `/proc/PID/maps` (proc(5)): returns the address ranges that the process may read and write.
fn writable_regions(maps: &str) -> Vec<Range<u64>> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        words
            .next()?
            .starts_with("rw")
            .then_some(hex(start)?..hex(end)?)
    };
    maps.lines().filter_map(parse).collect()
}

/// Returns the descriptor at the start of `bytes`, up to the end of its signature; `None` if it is only a fragment.
fn whole_descriptor(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let end = memmem::find(bytes, SIGNATURE)? + SIGNATURE.len() + SIGNATURE_LENGTH;
    let text = bytes.get(..end)?;
    let whole =
        text.is_ascii() && !text.contains(&0) && memmem::find(&text[1..], FIRST_LINE).is_none();
    whole.then_some(text)
}

/// Returns the blinded key of a descriptor: its certificate contains, in an extension, the key that signed the certificate.
fn blinded_key_in(text: &[u8]) -> Option<[u8; 32]> {
    let certificate = BASE64.decode(&certificate_base64(text)?.1).ok()?;
    // cert-spec: version, type, expiry (4), key type, key (32), number of extensions; then length (2), type, flags, key.
    certificate.get(CERTIFICATE_SIGNER)?.try_into().ok()
}

/// The position of the certified key in a certificate.
const CERTIFICATE_KEY: Range<usize> = 7..39;

/// The position of the signer's key in a certificate.
const CERTIFICATE_SIGNER: Range<usize> = 44..76;

/// Returns the position of the certificate's base64 lines, and their characters without the line ends.
fn certificate_base64(text: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
    let range = between(
        text,
        b"-----BEGIN ED25519 CERT-----\n",
        b"-----END ED25519 CERT-----",
    )?;
    let characters = text[range.clone()]
        .iter()
        .copied()
        .filter(|c| *c != b'\n')
        .collect();
    Some((range, characters))
}

/// Returns the range between two markers.
fn between(text: &[u8], before: &[u8], after: &[u8]) -> Option<Range<usize>> {
    let start = memmem::find(text, before)? + before.len();
    let length = memmem::find(&text[start..], after)?;
    Some(start..start + length)
}

/// Returns the text with the given fault and the same length; `None` if the text has an unknown format.
fn corrupt(text: &[u8], key: &BlindedKey, corruption: Corruption) -> Option<Vec<u8>> {
    let mut corrupted = text.to_vec();
    let signature = memmem::find(text, SIGNATURE)? + SIGNATURE.len();
    match corruption {
        // Only the first half: with a change in the second half, that would be a number out of range, which is another fault.
        Corruption::Signature => change_base64(&mut corrupted[signature + 4..signature + 20]),
        Corruption::Syntax => {
            let keyword = memmem::find(text, b"\nsuperencrypted\n")? + 1;
            corrupted[keyword] = b'x';
        }
        Corruption::Body => {
            let body = between(text, b"-----BEGIN MESSAGE-----\n", b"-----END MESSAGE-----")?;
            let middle = body.start + body.len() / 2;
            change_base64(&mut corrupted[middle..(middle + 60).min(body.end - 1)]);
            sign_with_new_key(&mut corrupted, key)?;
        }
    }
    Some(corrupted)
}

/// Replaces each base64 character with another one.
fn change_base64(characters: &mut [u8]) {
    for character in characters.iter_mut().filter(|c| **c != b'\n') {
        *character = if *character == b'A' { b'B' } else { b'A' };
    }
}

/// Signs a descriptor with a new signing key, which the blinded key certifies.
fn sign_with_new_key(text: &mut [u8], key: &BlindedKey) -> Option<()> {
    let signing_key = SigningKey::from_bytes(&OsRng.r#gen());
    let (range, characters) = certificate_base64(text)?;
    let mut certificate = BASE64.decode(&characters).ok()?;
    certificate[CERTIFICATE_KEY].copy_from_slice(signing_key.verifying_key().as_bytes());
    let signed = certificate.len() - 64;
    let signature = key.sign(&certificate[..signed]);
    certificate[signed..].copy_from_slice(&signature);
    let mut characters = BASE64.encode(&certificate).into_bytes().into_iter();
    for place in text[range].iter_mut().filter(|c| **c != b'\n') {
        *place = characters.next()?;
    }
    // The signed text ends with the line before the signature.
    let end = memmem::find(text, SIGNATURE)? + 1;
    let signature = signing_key.sign(&[SIGNATURE_PREFIX, &text[..end]].concat());
    let start = end + SIGNATURE.len() - 1;
    text[start..].copy_from_slice(BASE64_NOPAD.encode(&signature.to_bytes()).as_bytes());
    Some(())
}

/// A service's key for one time period, which signs its descriptors of that period.
struct BlindedKey {
    public: [u8; 32],
    secret: ExpandedSecretKey,
}

impl BlindedKey {
    /// Derives the blinded key of a service (rend-spec-v3, A.2).
    fn derive(service: &Service, schedule: Schedule, period: u64) -> Result<Self> {
        let file = fs::read(service.key_folder().join("hs_ed25519_secret_key"))
            .context("cannot read the key of the service")?;
        let master: [u8; 64] = file
            .get(32..)
            .unwrap_or_default()
            .try_into()
            .context("the key file has an unknown format")?;
        let master = ExpandedSecretKey::from_bytes(&master);
        let public = crate::address::public_key(service.address());
        let factor = clamp_integer(blinding_factor(&public, period, schedule.period_minutes()));
        let point = CompressedEdwardsY(public)
            .decompress()
            .context("the address contains no key")?;
        let blinded = point.mul_clamped(factor).compress().to_bytes();
        // The specification derives the prefix so that signatures are reproducible; any secret prefix makes valid ones.
        let secret = ExpandedSecretKey {
            scalar: Scalar::from_bytes_mod_order(factor) * master.scalar,
            hash_prefix: Sha3_256::new()
                .chain_update(b"testnet")
                .chain_update(master.hash_prefix)
                .finalize()
                .into(),
        };
        Ok(Self {
            public: blinded,
            secret,
        })
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let public = VerifyingKey::from_bytes(&self.public).expect("a blinded key is a point");
        raw_sign::<Sha512>(&self.secret, message, &public).to_bytes()
    }
}

/// Returns the factor by which a key is multiplied for a time period (rend-spec-v3, A.2).
fn blinding_factor(public: &[u8; 32], period: u64, period_minutes: u64) -> [u8; 32] {
    const BASEPOINT: &[u8] = b"(15112221349535400772501151409588531511454012693041857206046113283949847762202, \
                               46316835694926478169428394003475163141307993866256225615783033603165251855960)";
    Sha3_256::new()
        .chain_update(b"Derive temporary signing key\0")
        .chain_update(public)
        .chain_update(BASEPOINT)
        .chain_update(b"key-blind")
        .chain_update(period.to_be_bytes())
        .chain_update(period_minutes.to_be_bytes())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Signature;

    /// Returns a random key in place of a service's blinded key.
    fn blinded_key() -> BlindedKey {
        let secret = ExpandedSecretKey::from(&OsRng.r#gen::<[u8; 32]>());
        BlindedKey {
            public: VerifyingKey::from(&secret).to_bytes(),
            secret,
        }
    }

    /// Returns a text in the format of a descriptor, with a certificate for `key` and an invalid signature.
    fn descriptor(key: &BlindedKey) -> Vec<u8> {
        let mut certificate = vec![1, 8, 0, 0, 0, 0, 1];
        certificate.extend([7; 32]);
        certificate.extend([1, 0, 32, 4, 0]);
        certificate.extend(key.public);
        certificate.extend([0; 64]);
        let certificate = BASE64.encode(&certificate);
        let lines: Vec<&str> = certificate
            .as_bytes()
            .chunks(64)
            .map(|c| std::str::from_utf8(c).expect("ascii"))
            .collect();
        format!(
            "hs-descriptor 3\ndescriptor-lifetime 180\ndescriptor-signing-key-cert\n-----BEGIN ED25519 CERT-----\n{}\n\
             -----END ED25519 CERT-----\nrevision-counter 7\nsuperencrypted\n-----BEGIN MESSAGE-----\n{}\n\
             -----END MESSAGE-----\nsignature {}",
            lines.join("\n"),
            ["Q".repeat(64), "R".repeat(64), "S".repeat(64)].join("\n"),
            "T".repeat(SIGNATURE_LENGTH),
        )
        .into_bytes()
    }

    #[test]
    fn only_a_complete_descriptor_is_found_and_it_is_identified_by_its_blinded_key() {
        let key = blinded_key();
        let text = descriptor(&key);
        let memory = [&text[..], b"\n\0rubbish"].concat();
        assert_eq!(whole_descriptor(&memory), Some(&text[..]));
        assert_eq!(blinded_key_in(&text), Some(key.public));
        assert_eq!(whole_descriptor(&text[..text.len() - 1]), None);
        let two = [&text[..100], &text[..]].concat();
        assert_eq!(whole_descriptor(&two), None);
    }

    #[test]
    fn each_corruption_changes_only_its_part_of_the_text() {
        let key = blinded_key();
        let text = descriptor(&key);
        let changed = |corruption| {
            let corrupted = corrupt(&text, &key, corruption).expect("the format is known");
            assert_eq!(corrupted.len(), text.len());
            String::from_utf8(corrupted).expect("ascii")
        };
        let original = String::from_utf8(text.clone()).expect("ascii");
        let (head, _) = original.split_once("signature ").expect("a signature");
        let signature = changed(Corruption::Signature);
        assert!(signature.starts_with(head) && signature != original);
        assert_eq!(
            changed(Corruption::Syntax),
            original.replace("\nsuperencrypted", "\nxuperencrypted")
        );
    }

    #[test]
    fn a_garbled_body_is_signed_with_the_services_key() {
        let key = blinded_key();
        let text = corrupt(&descriptor(&key), &key, Corruption::Body).expect("the format is known");
        assert_eq!(blinded_key_in(&text), Some(key.public));
        let certificate = BASE64
            .decode(&certificate_base64(&text).expect("a certificate").1)
            .expect("base64");
        let (signed, signature) = certificate.split_at(certificate.len() - 64);
        let blinded = VerifyingKey::from_bytes(&key.public).expect("a key");
        blinded
            .verify_strict(signed, &Signature::from_slice(signature).expect("64 bytes"))
            .expect("the blinded key certifies the signing key");
        let signer: [u8; 32] = certificate[CERTIFICATE_KEY].try_into().expect("32 bytes");
        let end = memmem::find(&text, SIGNATURE).expect("a signature") + 1;
        let signature = BASE64_NOPAD
            .decode(&text[text.len() - SIGNATURE_LENGTH..])
            .expect("base64");
        VerifyingKey::from_bytes(&signer)
            .expect("a key")
            .verify_strict(
                &[SIGNATURE_PREFIX, &text[..end]].concat(),
                &Signature::from_slice(&signature).expect("64 bytes"),
            )
            .expect("the signing key signs the text");
    }

    #[test]
    fn only_writable_mappings_are_searched() {
        let maps = "55d0-55e0 r--p 00000000 08:01 1 /usr/bin/tor\n55e0-55f0 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(writable_regions(maps), vec![0x55e0..0x55f0]);
    }
}
