//! Opening in place: the buffer's content afterwards.

use super::BACKEND;
use crate::OpenError;
use crate::ciphertext::Suite;
use crate::tests::support::{seal_with, suite_key};

const NONCE: [u8; 24] = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
const AAD: &[u8] = b"table, column, row";

/// Puts bytes before a message, as a ciphertext's header does.
fn behind(prefix: usize, body: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(prefix + body.len() + 32);
    buffer.resize(prefix, 0xee);
    buffer.extend_from_slice(body);
    buffer
}

#[test]
fn the_plaintext_alone_is_left() {
    let key = suite_key(BACKEND, [3; 32]);
    for suite in Suite::ALL {
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 64, 100, 5000] {
            for prefix in [0, 1, 18, 40] {
                let plaintext: Vec<_> = (0..=255).cycle().take(len).collect();
                let body = seal_with(&key, suite, NONCE, AAD, &plaintext);
                let mut buffer = behind(prefix, &body);
                let room = (buffer.as_ptr(), buffer.capacity());
                key.open_in_place(None, suite, AAD, &mut buffer, prefix).unwrap();
                assert_eq!(buffer, plaintext, "{suite:?}, {len} bytes behind {prefix}");
                assert_eq!((buffer.as_ptr(), buffer.capacity()), room);
                // Neither the old copy of the plaintext's tail nor any other part of the message.
                #[cfg(target_os = "linux")]
                assert!(
                    crate::tests::support::spare_bytes(&buffer)[..prefix + body.len() - len]
                        .iter()
                        .all(|byte| *byte == 0),
                    "{suite:?}, {len} bytes behind {prefix}"
                );
            }
        }
    }
}

#[test]
fn after_a_refusal_the_buffer_is_wiped_and_empty() {
    let key = suite_key(BACKEND, [3; 32]);
    for suite in Suite::ALL {
        let body = seal_with(&key, suite, NONCE, AAD, &[0x5a; 100]);
        let changed = |at: usize| {
            let mut changed = body.clone();
            changed[at] ^= 1;
            changed
        };
        let refused: [(Vec<u8>, &[u8]); 6] = [
            (changed(0), AAD),
            (changed(30), AAD),
            (changed(24 + 100 + 3), AAD),
            (changed(body.len() - 1), AAD),
            (body.clone(), b"another place"),
            (body[..30].to_vec(), AAD),
        ];
        for (body, aad) in refused {
            let mut buffer = behind(18, &body);
            assert!(key.open_in_place(None, suite, aad, &mut buffer, 18).is_err());
            assert!(buffer.is_empty());
            #[cfg(target_os = "linux")]
            assert!(
                crate::tests::support::spare_bytes(&buffer)
                    .iter()
                    .all(|byte| *byte == 0)
            );
        }
        let mut buffer = vec![7; 17];
        assert_eq!(
            key.open_in_place(None, suite, AAD, &mut buffer, 18),
            Err(OpenError::TooShort)
        );
        assert!(buffer.is_empty());
    }
}
