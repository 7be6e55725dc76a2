//! A KEK file under a passphrase, and the keys in it, read by the description in `docs/format.md`.

use encx::kms::DataKey;
use encx::suite::KcXaes256Gcm;
use encx_local::{Argon2Params, LocalKms, Protection};
use encx_testkit::block_on;
use tempfile::TempDir;

use super::{MASK, hex};

pub(crate) struct KekFile {
    folder: TempDir,
    passphrase: String,
}

/// The content of a file.
pub(crate) struct Content {
    pub(crate) file_key: [u8; 32],
    /// The first half of the nonce that it is sealed under.
    pub(crate) sealed: [u8; 12],
    pub(crate) keks: Vec<[u8; 32]>,
}

impl KekFile {
    pub(crate) fn create() -> Self {
        let random = DataKey::generate().unwrap();
        let file = Self {
            folder: TempDir::new().unwrap(),
            passphrase: hex(random.expose()[..20].iter().copied()),
        };
        let params = Argon2Params::new(256, 1, 1).unwrap();
        let protection = Protection::passphrase_with(file.passphrase.clone(), params);
        block_on(LocalKms::create(file.path(), protection)).unwrap();
        file
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().join("keks").to_str().unwrap().to_owned()
    }

    pub(crate) fn passphrase(&self) -> &str {
        &self.passphrase
    }

    pub(crate) fn masked_passphrase(&self) -> String {
        hex(self.passphrase.bytes().map(|byte| byte ^ MASK))
    }

    pub(crate) fn content(&self) -> Content {
        let bytes = std::fs::read(self.path()).unwrap();
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (header, rest) = bytes.split_at(10 + 12 + 16);
        let params = argon2::Params::new(u32_at(10), u32_at(14), u32_at(18), None).unwrap();
        let mut blocks = vec![argon2::Block::default(); params.block_count()];
        let mut file_key = [0; 32];
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into_with_memory(
                self.passphrase.as_bytes(),
                &header[22..],
                &mut file_key,
                &mut blocks,
            )
            .unwrap();
        let len = usize::try_from(u32_at(38)).unwrap();
        let sealed = &rest[4..4 + len];
        let body = KcXaes256Gcm::new(&DataKey::copy_from(&file_key).unwrap())
            .open(header, sealed)
            .unwrap();
        let u16_at = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        assert_eq!(u16_at(0), 1, "one KEK");
        let id_len = u16_at(2);
        let materials = body[7 + id_len..].chunks(48).take(u16_at(5 + id_len));
        Content {
            file_key,
            sealed: sealed[..12].try_into().unwrap(),
            keks: materials.map(|one| one[16..].try_into().unwrap()).collect(),
        }
    }
}
