//! The secret of a job, which driver and ranks share.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// Bytes of a key, of a nonce and of a tag.
pub const LENGTH: usize = 32;

/// A random 256-bit key. It is given to the ranks by their environment and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JobKey([u8; LENGTH]);

impl JobKey {
    /// A new key from the operating system's random numbers.
    pub fn random() -> JobKey {
        JobKey(random())
    }

    /// As 64 hexadecimal digits, for an environment variable or a file that only its owner can read.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The job's name, which is no secret.
    pub(crate) fn job(&self) -> String {
        hex::encode(&self.derive(&[b"muster job"]).0[..8])
    }

    /// HMAC-SHA-256 (RFC 2104) under this key, fed with `parts` one after the other.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// What makes the tag of a frame under this key.
    pub(crate) fn frame_tag(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }

    /// A key of its own for one purpose.
    pub(crate) fn derive(&self, parts: &[&[u8]]) -> JobKey {
        JobKey(self.mac(parts).finalize().into_bytes().into())
    }
}

/// Random bytes of the operating system.
pub(crate) fn random() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

impl FromStr for JobKey {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<JobKey, Self::Err> {
        let mut key = [0; LENGTH];
        hex::decode_to_slice(text, &mut key)?;
        Ok(JobKey(key))
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_does_not_show() {
        let key = JobKey::random();
        assert_eq!(key.to_hex().parse(), Ok(key.clone()));
        assert_ne!(key, JobKey::random());
        assert!(!format!("{key:?}").contains(&key.to_hex()[..8]));
        assert!("00".parse::<JobKey>().is_err());
    }

    /// RFC 4231, test case 1, with its key padded by zeros to 32 bytes, which HMAC does anyway.
    #[test]
    fn tags_are_hmac_sha_256() {
        let key: JobKey = format!("{:0<64}", "0b".repeat(20)).parse().unwrap();
        let tag: [u8; LENGTH] = key.mac(&[b"Hi ", b"There"]).finalize().into_bytes().into();
        assert_eq!(hex::encode(tag), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }
}
