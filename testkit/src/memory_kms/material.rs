//! The material of an in-memory KEK, and a test cipher that wraps under it: do not store data under it.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use encx_core::key::{DATA_KEY_LEN, DataKey, KekId, fill_from_os};
use encx_core::kms::KmsContext;
use encx_core::memory::{DEEP, wiping_stack};

pub(super) struct Material {
    pub(super) id: Uuid,
    key: DataKey,
}

impl Material {
    pub(super) fn generate() -> Self {
        let mut id = [0; 16];
        fill_from_os(&mut id).expect("the operating system gives randomness");
        Self {
            id: uuid::Builder::from_random_bytes(id).into_uuid(),
            key: DataKey::generate().expect("the operating system gives randomness"),
        }
    }

    #[allow(clippy::unwrap_used, reason = "HMAC has no invalid key length")]
    fn mac(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.key.expose()).unwrap();
        mac.update(purpose);
        mac
    }

    /// Encrypts or decrypts 32 bytes with one block of HMAC in counter mode. The nonce must never repeat.
    pub(super) fn mask(&self, nonce: &[u8], bytes: &[u8], masked: &mut [u8; DATA_KEY_LEN]) {
        wiping_stack::<DEEP, _>(|| {
            let mut mac = self.mac(b"mask");
            mac.update(nonce);
            let stream = mac.finalize().into_bytes();
            for (masked, (byte, stream)) in masked.iter_mut().zip(bytes.iter().zip(stream)) {
                *masked = byte ^ stream;
            }
        });
    }

    pub(super) fn tag(&self, kek: &KekId, body: &[u8], context: &KmsContext) -> Hmac<Sha256> {
        let mut mac = self.mac(b"tag!");
        // Of the three parts only the first and the last vary in length, and the last is self-framing.
        mac.update(&(kek.as_str().len() as u64).to_be_bytes());
        mac.update(kek.as_str().as_bytes());
        mac.update(body);
        mac.update(&context.canonical());
        mac
    }
}
