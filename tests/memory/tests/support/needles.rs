//! The needles: keys, and everything that reveals a key.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aes::cipher::{BlockEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::child::Child;
use super::kek_file::KekFile;

/// Byte strings, and the kind of each.
pub(crate) struct Needles {
    list: Vec<Needle>,
    /// The number of AES keys.
    keys: usize,
}

struct Needle {
    bytes: Vec<u8>,
    name: &'static str,
    /// The AES key that this is a round key of, and its index.
    round: Option<(usize, usize)>,
}

impl Needles {
    /// Everything that reveals a data key of a process, the key of one of its messages, or the key from which subkeys
    /// are derived.
    pub(crate) fn of(child: &Child) -> Self {
        assert!(
            !child.keys.is_empty() && !child.messages.is_empty(),
            "it has told nothing"
        );
        let mut needles = Self {
            list: Vec::new(),
            keys: 0,
        };
        for key in &child.keys {
            needles.add_key("DEK", key);
            needles.add_hmac_key("DEK", key);
            for first_half in &child.messages {
                needles.add_key("Kx", &message_key(key, first_half));
            }
            let mut extract = <Hmac<Sha256> as Mac>::new_from_slice(&[0; 32]).unwrap();
            extract.update(key);
            let prk: [u8; 32] = extract.finalize().into_bytes().into();
            needles.add("PRK", prk);
            needles.add_hmac_key("PRK", &prk);
        }
        needles
    }

    /// The keys of a KEK file, and those that seal wraps under it.
    pub(crate) fn add_file(&mut self, file: &KekFile, child: &Child) {
        let content = file.content();
        self.add("passphrase", file.passphrase());
        self.add_key("file key", &content.file_key);
        self.add_key("file key's Kx", &message_key(&content.file_key, &content.sealed));
        for kek in &content.keks {
            self.add_key("KEK", kek);
            for wrap in &child.wraps {
                // Version and material id precede the nonce.
                self.add_key("KEK's Kx", &message_key(kek, wrap[17..29].try_into().unwrap()));
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|needle| needle.bytes.as_slice())
    }

    /// Returns what the needles with these numbers reveal.
    pub(crate) fn given_away(&self, found: &BTreeSet<usize>) -> BTreeSet<&'static str> {
        let mut given = BTreeSet::new();
        let mut rounds = vec![[false; 15]; self.keys];
        for number in found {
            match (&self.list[*number], self.list[*number].round) {
                (needle, None) => _ = given.insert(needle.name),
                (needle, Some((key, round))) => {
                    rounds[key][round] = true;
                    // Two neighbouring round keys reveal the key, wherever they are.
                    let next = rounds[key].get(round + 1).is_some_and(|found| *found);
                    if next || round > 0 && rounds[key][round - 1] {
                        given.insert(needle.name);
                    }
                }
            }
        }
        given
    }

    fn add(&mut self, name: &'static str, bytes: impl AsRef<[u8]>) {
        self.list.push(Needle {
            bytes: bytes.as_ref().to_vec(),
            name,
            round: None,
        });
    }

    /// An AES-256 key. Its first two round keys are the key.
    fn add_key(&mut self, name: &'static str, key: &[u8; 32]) {
        let needles = round_keys(key).into_iter().enumerate();
        self.list.extend(needles.map(|(round, bytes)| Needle {
            bytes: bytes.to_vec(),
            name,
            round: Some((self.keys, round)),
        }));
        self.keys += 1;
    }

    /// A key as HMAC pads it.
    fn add_hmac_key(&mut self, name: &'static str, key: &[u8; 32]) {
        for pad in [0x36, 0x5c] {
            self.add(name, key.map(|byte| byte ^ pad));
        }
    }
}

/// Kx of XAES-256-GCM.
fn message_key(key: &[u8; 32], first_half: &[u8; 12]) -> [u8; 32] {
    let aes = aes::Aes256::new(key.into());
    let encrypt = |block: [u8; 16]| {
        let mut block = block.into();
        aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let l = encrypt([0; 16]);
    let k1 = (l << 1) ^ (0x87 * (l >> 127));
    let mut derived = [0; 32];
    for (counter, half) in [1, 2].into_iter().zip(derived.chunks_mut(16)) {
        let mut block = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        block[4..].copy_from_slice(first_half);
        let block = u128::from_be_bytes(block) ^ k1;
        half.copy_from_slice(&encrypt(block.to_be_bytes()).to_be_bytes());
    }
    derived
}

/// Expands an AES-256 key (FIPS 197, section 5.2). The first two round keys are the key.
fn round_keys(key: &[u8; 32]) -> Vec<[u8; 16]> {
    let mut words: Vec<u32> = key
        .chunks(4)
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect();
    for at in 8..60 {
        let mut word = words[at - 1];
        if at % 8 == 0 {
            word = sub_word(word.rotate_left(8)) ^ (1 << (23 + at / 8));
        } else if at % 8 == 4 {
            word = sub_word(word);
        }
        words.push(words[at - 8] ^ word);
    }
    words
        .chunks(4)
        .map(|words| {
            let bytes: Vec<_> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            bytes.try_into().unwrap()
        })
        .collect()
}

fn sub_word(word: u32) -> u32 {
    static TABLE: LazyLock<[u8; 256]> =
        LazyLock::new(|| std::array::from_fn(|byte| sub_byte(u8::try_from(byte).unwrap())));
    u32::from_be_bytes(word.to_be_bytes().map(|byte| TABLE[usize::from(byte)]))
}

/// AES's S-box: the inverse in its field, and an affine map.
fn sub_byte(byte: u8) -> u8 {
    // The inverse is the 254th power.
    let mut inverse = 1;
    for _ in 0..254 {
        inverse = multiply(inverse, byte);
    }
    [1, 2, 3, 4]
        .iter()
        .fold(inverse, |sum, by| sum ^ inverse.rotate_left(*by))
        ^ 0x63
}

fn multiply(mut left: u8, mut right: u8) -> u8 {
    let mut product = 0;
    while right != 0 {
        if right & 1 != 0 {
            product ^= left;
        }
        left = (left << 1) ^ (0x1b * (left >> 7));
        right >>= 1;
    }
    product
}

/// FIPS 197, appendix A.3.
#[test]
fn round_keys_are_those_of_aes() {
    let key = super::from_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let keys = round_keys(&key.try_into().unwrap());
    assert_eq!(keys.len(), 15);
    assert_eq!(super::hex(keys[2]), "9ba354118e6925afa51a8b5f2067fcde");
    assert_eq!(super::hex(keys[14]), "fe4890d1e6188d0b046df344706c631e");
}

/// The first vector of XAES-256-GCM.
#[test]
fn message_keys_are_those_of_xaes() {
    let key = message_key(&[1; 32], b"ABCDEFGHIJKL");
    let expected = "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b";
    assert_eq!(super::hex(key), expected);
}
