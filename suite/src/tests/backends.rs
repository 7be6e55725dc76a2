//! The chosen backend, and that all backends give the same bytes.

use proptest::prelude::*;

use crate::backend::Processor;
use crate::ciphertext::Suite;
use crate::tests::mix::{plan, run};
use crate::tests::support::{seal_with, suite_key};
use crate::{Backend, SuiteOptions, backend};

#[test]
fn each_processor_has_an_order_of_all_backends() {
    for processor in [Processor::Avx512, Processor::Vaes, Processor::Other] {
        let order = Backend::fastest_first(processor);
        assert_eq!(order.len(), Backend::COMPILED.len(), "{processor:?}");
        for backend in Backend::COMPILED {
            assert!(order.contains(backend), "{processor:?}: {backend:?}");
        }
    }
}

#[test]
fn one_backend_serves_a_process() {
    assert!(Backend::COMPILED.contains(&backend()));
    assert_eq!(backend(), backend());
    assert_eq!(SuiteOptions::default().backend, backend());
}

/// What `benches/backends` measured.
#[cfg(all(feature = "aes-gcm", feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn the_fastest_backend_serves() {
    use Backend::{AesGcm, AwsLcRs, Ring};

    assert_eq!(Backend::fastest_first(Processor::Avx512), [AwsLcRs, Ring, AesGcm]);
    assert_eq!(Backend::fastest_first(Processor::Vaes), [Ring, AwsLcRs, AesGcm]);
    assert_eq!(Backend::fastest_first(Processor::Other), [AwsLcRs, Ring, AesGcm]);
}

/// Pseudorandom-looking bytes.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let numbers = (0..len).map(|at| at.wrapping_mul(0x9e37_79b9).rotate_left(7).to_le_bytes()[1]);
    numbers.map(|byte| byte ^ seed).collect()
}

#[test]
fn all_give_the_same_bytes() {
    for len in (0..=300_usize).chain([4096, 70_000]) {
        let seed = len.to_le_bytes()[0];
        let key = bytes(32, seed).try_into().unwrap();
        let nonce = bytes(24, !seed).try_into().unwrap();
        let (aad, plaintext) = (bytes(len % 200, 1), bytes(len, 2));
        let keys = Backend::COMPILED.iter().map(|backend| suite_key(*backend, key));
        let keys: Vec<_> = keys.collect();
        for suite in Suite::ALL {
            let sealed = seal_with(&keys[0], suite, nonce, &aad, &plaintext);
            for (key, backend) in keys.iter().zip(Backend::COMPILED) {
                let by_this = seal_with(key, suite, nonce, &aad, &plaintext);
                assert_eq!(by_this, sealed, "{backend:?}: {len}");
                assert_eq!(*key.open(None, suite, &aad, &sealed).unwrap(), plaintext);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn each_opens_what_the_others_sealed(plan in plan()) {
        for writer in Backend::COMPILED {
            for reader in Backend::COMPILED {
                if writer != reader {
                    run(*writer, *reader, &plan);
                }
            }
        }
    }
}
