//! The cache of opened messages' keys: admission, hits, bounds.

use super::BACKEND;
use crate::ciphertext::{NONCE_LEN, Suite};
use crate::epoch::Epoch;
use crate::message_key_cache::{PLACES, count_shares_apart, forget_opened, take_all_shares};
use crate::tests::support::{halves, seal_with, suite_key, undisturbed};
use crate::{OpenError, SuiteKey};

const KEY: [u8; 32] = [3; 32];
const AAD: &[u8] = b"table, column, row";

/// A nonce with a numbered first half; bytes 10 and 11, which select the place, are the same in all.
fn nonce_of(number: u8) -> [u8; NONCE_LEN] {
    let mut nonce = [0x77; NONCE_LEN];
    nonce[..8].fill(number);
    nonce
}

fn sealed(number: u8) -> Vec<u8> {
    seal_with(
        &suite_key(BACKEND, KEY),
        Suite::KcXaes256Gcm,
        nonce_of(number),
        AAD,
        b"secret",
    )
}

fn open(key: &SuiteKey, body: &[u8]) {
    let opened = key.open(None, Suite::KcXaes256Gcm, AAD, body);
    assert_eq!(&*opened.unwrap(), b"secret");
}

/// A key that has opened nothing, and whose predecessors at the same address are forgotten.
fn fresh() -> SuiteKey {
    forget_opened();
    suite_key(BACKEND, KEY)
}

/// A key whose cache keeps the message key of a nonce.
fn keeping(number: u8) -> SuiteKey {
    let key = fresh();
    open(&key, &sealed(number));
    open(&key, &sealed(number));
    assert_eq!(key.opened.size().0, 1);
    key
}

#[test]
fn a_key_that_opens_one_message_has_no_cache() {
    let key = fresh();
    open(&key, &sealed(0));
    assert_eq!(key.opened.size(), (0, 0));
}

#[test]
fn a_message_key_is_kept_when_it_was_asked_for_twice() {
    let _guard = undisturbed();
    let key = fresh();
    for number in 1..=50 {
        open(&key, &sealed(number));
        assert_eq!(key.opened.size(), (0, 0), "once each");
    }
    for expected in [(1, PLACES), (1, PLACES), (1, PLACES)] {
        open(&key, &sealed(1));
        assert_eq!(key.opened.size(), expected);
    }
}

#[test]
fn what_another_data_key_or_another_thread_opened_does_not_count() {
    let _guard = undisturbed();
    let [key, other] = [fresh(), fresh()];
    open(&other, &sealed(1));
    open(&key, &sealed(1));
    std::thread::scope(|scope| scope.spawn(|| open(&key, &sealed(1))).join()).unwrap();
    assert_eq!(key.opened.size(), (0, 0));
    open(&key, &sealed(1));
    assert_eq!((key.opened.size(), other.opened.size()), ((1, PLACES), (0, 0)));
}

#[test]
fn what_is_kept_opens_all_messages_of_its_epoch() {
    let _guard = undisturbed();
    let (key, writer) = (keeping(1), suite_key(BACKEND, KEY));
    for suite in Suite::ALL {
        for number in 0..20 {
            let mut nonce = nonce_of(1);
            nonce[12..].fill(number);
            let plaintext = vec![number; usize::from(number)];
            let body = seal_with(&writer, suite, nonce, AAD, &plaintext);
            assert_eq!(*key.open(None, suite, AAD, &body).unwrap(), plaintext);
            let mut buffer = body;
            key.open_in_place(None, suite, AAD, &mut buffer, 0).unwrap();
            assert_eq!(buffer, plaintext);
        }
    }
    assert_eq!(key.opened.size(), (1, PLACES));
}

/// Each changes one authenticated byte, and leaves the first half unchanged.
fn forgeries(body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..100).map(|number| {
        // From the second half of the nonce to the end of the commitment.
        let at = NONCE_LEN / 2 + number % (body.len() - NONCE_LEN / 2);
        let mut forged = body.to_vec();
        forged[at] ^= 1 << (number % 8);
        forged
    })
}

#[test]
fn forgeries_leave_no_trace() {
    let _guard = undisturbed();
    let body = sealed(1);
    // Before any message was opened, when the next correct message is kept, and after it was kept.
    for opened in 0..3 {
        let key = fresh();
        for _ in 0..opened {
            open(&key, &body);
        }
        let before = key.opened.size();
        for forged in forgeries(&body) {
            assert!(key.open(None, Suite::KcXaes256Gcm, AAD, &forged).is_err());
        }
        for number in 0..100 {
            let aad = [number];
            let refused = key.open(None, Suite::KcXaes256Gcm, &aad, &body);
            assert_eq!(refused, Err(OpenError::Tag));
            let refused = key.open(None, Suite::Xaes256Gcm, AAD, &body);
            assert_eq!(refused, Err(OpenError::Tag));
        }
        assert_eq!(key.opened.size(), before, "after {opened}");
        for _ in opened..2 {
            assert_eq!(key.opened.size().0, 0, "forgeries count as nothing");
            open(&key, &body);
        }
        assert_eq!(key.opened.size().0, 1);
    }
}

#[test]
fn all_twelve_bytes_are_compared() {
    let _guard = undisturbed();
    let (key, writer) = (keeping(1), suite_key(BACKEND, KEY));
    for bit in 0..12 * 8 {
        let mut nonce = nonce_of(1);
        nonce[bit / 8] ^= 1 << (bit % 8);
        for suite in Suite::ALL {
            let body = seal_with(&writer, suite, nonce, AAD, b"another");
            assert_eq!(
                &*key.open(None, suite, AAD, &body).unwrap(),
                b"another",
                "bit {bit}"
            );
            // Opens with the kept message key unless the nonce is compared.
            let mut moved = seal_with(&writer, suite, nonce_of(1), AAD, b"secret");
            moved[..NONCE_LEN].copy_from_slice(&nonce);
            let refused = match suite {
                Suite::KcXaes256Gcm => OpenError::Commitment,
                _ => OpenError::Tag,
            };
            assert_eq!(key.open(None, suite, AAD, &moved), Err(refused), "bit {bit}");
        }
    }
}

#[test]
fn the_epoch_of_the_caller_is_compared_too() {
    let (key, other) = (suite_key(BACKEND, KEY), suite_key(BACKEND, [4; 32]));
    let epoch = |of: &SuiteKey, number| Epoch {
        key: of.xaes.derive(BACKEND, &halves(nonce_of(number))[0]),
        fork: 0,
    };
    let body = sealed(1);
    for (epoch, opens) in [
        (epoch(&key, 1), true),
        (epoch(&key, 2), true),
        (epoch(&other, 2), true),
        // Does not occur, because a caller keeps an epoch beside its data key. Nothing opens under it all the same.
        (epoch(&other, 1), false),
    ] {
        // The cache must keep nothing here.
        forget_opened();
        let opened = key.open(Some(&epoch), Suite::KcXaes256Gcm, AAD, &body);
        assert_eq!(opened.is_ok(), opens);
    }
    // Sealed by another data key under the same nonce.
    let foreign = seal_with(&other, Suite::KcXaes256Gcm, nonce_of(1), AAD, b"secret");
    assert_eq!(
        key.open(Some(&epoch(&key, 1)), Suite::KcXaes256Gcm, AAD, &foreign),
        Err(OpenError::Commitment)
    );
    let mut bit = nonce_of(1);
    for at in 0..12 {
        bit[at] ^= 0x80;
        let body = seal_with(&key, Suite::KcXaes256Gcm, bit, AAD, b"secret");
        let opened = key.open(Some(&epoch(&key, 1)), Suite::KcXaes256Gcm, AAD, &body);
        assert_eq!(&*opened.unwrap(), b"secret", "byte {at}");
        bit[at] ^= 0x80;
    }
}

#[test]
fn a_taken_place_stays_taken() {
    let _guard = undisturbed();
    let key = keeping(1);
    for number in [2, 2, 2, 1, 2] {
        open(&key, &sealed(number));
    }
    assert_eq!(key.opened.size(), (1, PLACES));
}

#[test]
fn shares_are_bounded_and_given_back() {
    count_shares_apart();
    let all = take_all_shares();
    let count = all.len();
    assert_eq!(count, 16_384);
    let key = fresh();
    for _ in 0..10 {
        open(&key, &sealed(1));
    }
    assert_eq!(key.opened.size(), (0, 0), "nothing is kept without a share");
    drop(all);
    let key = keeping(1);
    for nonce in 0..20_u8 {
        let mut with = nonce_of(nonce + 10);
        with[11] = nonce;
        let body = seal_with(&key, Suite::KcXaes256Gcm, with, AAD, b"secret");
        open(&key, &body);
        // A message that is refused when its key would be kept returns its share at once.
        for forged in forgeries(&body).take(20) {
            assert!(key.open(None, Suite::KcXaes256Gcm, AAD, &forged).is_err());
        }
        open(&key, &body);
    }
    let kept = key.opened.size().0;
    assert!(kept > 1);
    assert_eq!(take_all_shares().len(), count - kept);
    drop(key);
    assert_eq!(take_all_shares().len(), count);
}

#[test]
fn a_cache_opens_nothing_that_would_not_open_without_it() {
    let _guard = undisturbed();
    let (kept, other) = (keeping(1), suite_key(BACKEND, [4; 32]));
    let writer = suite_key(BACKEND, KEY);
    let mut bodies: Vec<_> = forgeries(&sealed(1)).collect();
    for key in [&writer, &other] {
        for suite in Suite::ALL {
            bodies.push(seal_with(key, suite, nonce_of(1), AAD, b"secret"));
            bodies.push(seal_with(key, suite, nonce_of(1), b"", &[7; 100]));
        }
    }
    bodies.extend((0..sealed(1).len()).map(|len| sealed(1)[..len].to_vec()));
    let mut opened = 0;
    for body in &bodies {
        for suite in Suite::ALL {
            for aad in [AAD, b""] {
                let without = suite_key(BACKEND, KEY).open(None, suite, aad, body);
                opened += usize::from(without.is_ok());
                assert_eq!(kept.open(None, suite, aad, body), without);
                let mut buffer = body.clone();
                let in_place = kept.open_in_place(None, suite, aad, &mut buffer, 0);
                assert_eq!(in_place, without.map(drop));
            }
        }
    }
    // The key's own message; and suite 1 without its commitment is suite 2, which only the header tells apart.
    assert_eq!(opened, 4 + 1);
}

#[test]
fn threads_fill_one_cache() {
    let _guard = undisturbed();
    let key = fresh();
    let bodies: Vec<_> = (0..64)
        .map(|number| {
            let mut with = nonce_of(number);
            with[11] = number;
            seal_with(&key, Suite::KcXaes256Gcm, with, AAD, b"secret")
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (key, bodies) = (&key, &bodies);
            scope.spawn(move || {
                for round in 0..40 {
                    for at in 0..bodies.len() {
                        open(key, &bodies[(at * (2 * thread + 1) + round) % bodies.len()]);
                    }
                }
            });
        }
    });
    assert_eq!(key.opened.size(), (64, PLACES));
}
