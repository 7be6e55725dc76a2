//! Epochs: which messages share a message key, and that no nonce repeats.

use std::collections::HashSet;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::thread;

use arc_swap::ArcSwapOption;

use super::BACKEND;
use super::vectors::cmac;
use crate::bytes::HalfNonce;
use crate::ciphertext::{COMMITMENT_LEN, NONCE_LEN, Suite};
use crate::epoch::ends_epoch;
use crate::memory;
use crate::tests::support::{
    Sealer, disturbing, first_half, nonce, oracle_opens, padded, second_half, suite_key, undisturbed,
};
use crate::xaes::PaddedHalf;
use crate::{Epochs, KcXaes256Gcm, SealError};

const KEY: [u8; 32] = [3; 32];
const NOW: Option<u64> = Some(7);

/// A half nonce that does not end an epoch.
fn half(number: u8) -> HalfNonce {
    let mut half = [number; 12];
    half[11] = 1;
    half
}

fn ending(last: u16) -> HalfNonce {
    let mut half = [0xe5; 12];
    half[10..].copy_from_slice(&last.to_be_bytes());
    half
}

#[test]
fn what_is_sealed_under_an_epoch_is_a_plain_message() {
    let mut sealer = Sealer::new(BACKEND, KEY);
    for len in (0..40).chain([1000, 70_000]) {
        for suite in Suite::ALL {
            let plaintext = vec![0x5a; len];
            let body = sealer.seal(suite, b"aad", &plaintext);
            assert_eq!(body.len(), suite.body_overhead() + len);
            assert_eq!(oracle_opens(KEY, suite, b"aad", &body), plaintext);
            assert_eq!(
                *sealer.key.open(None, suite, b"aad", &body).unwrap(),
                plaintext,
                "without the epoch"
            );
            assert_eq!(
                *sealer
                    .key
                    .open(sealer.epoch.as_deref(), suite, b"aad", &body)
                    .unwrap(),
                plaintext,
                "with it"
            );
            if suite == Suite::KcXaes256Gcm {
                let macs = [1, 2]
                    .map(|number| cmac(&KEY, &[b"XCMT", &body[..NONCE_LEN], &[0, 1, 0, number]].concat()));
                assert_eq!(&body[body.len() - COMMITMENT_LEN..], macs.as_flattened());
            }
        }
    }
}

#[test]
fn an_epoch_shares_the_first_half_and_nothing_else() {
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let first = sealer.seal_drawn(half(1), NOW);
    assert_ne!(
        second_half(&first),
        half(1),
        "the first message's nonce is whole from the operating system"
    );
    for number in 2..50 {
        let body = sealer.seal_drawn(half(number), NOW);
        assert_eq!(first_half(&body), first_half(&first));
        assert_eq!(second_half(&body), half(number));
    }
}

#[test]
fn drawn_halves_are_fresh() {
    let _guard = undisturbed();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let bodies: Vec<_> = (0..500)
        .map(|_| sealer.seal(Suite::KcXaes256Gcm, b"", b"the same"))
        .collect();
    let second: HashSet<_> = bodies.iter().map(|body| second_half(body)).collect();
    assert_eq!(second.len(), bodies.len());
    // Fails once in 10²⁶ runs, if one of twenty epochs happens to end.
    let first: HashSet<_> = bodies.iter().map(|body| first_half(body)).collect();
    assert!(first.len() < 20, "{} epochs", first.len());
}

#[test]
fn the_first_epoch_is_not_kept_the_second_is() {
    let mut sealer = Sealer::new(BACKEND, KEY);
    let first = sealer.seal_drawn(half(1), NOW);
    assert!(sealer.epoch.is_none());
    let second = sealer.seal_drawn(half(2), NOW);
    let epoch = sealer.epoch.clone().unwrap();
    assert_ne!(first_half(&second), first_half(&first));
    assert_eq!(epoch.key.first_half, first_half(&second));
    let third = sealer.seal_drawn(half(3), NOW);
    assert_eq!(first_half(&third), first_half(&second));
}

#[test]
fn a_half_that_ends_an_epoch_is_discarded() {
    for last in [0x0000, 0x1000, 0x2000, 0x8000, 0xf000] {
        let mut sealer = Sealer::begun(BACKEND, KEY);
        let before = sealer.seal_drawn(half(1), NOW);
        let body = sealer.seal_drawn(ending(last), NOW);
        assert_ne!(first_half(&body), first_half(&before), "{last:04x}");
        assert_ne!(second_half(&body), ending(last), "{last:04x}");
        let after = sealer.seal_drawn(half(2), NOW);
        assert_eq!(
            first_half(&after),
            first_half(&body),
            "{last:04x}: the next epoch is kept"
        );
    }
    for last in [0x0001, 0x0010, 0x0800, 0x0fff, 0x1001, 0x8800, 0xffff] {
        let mut sealer = Sealer::begun(BACKEND, KEY);
        let before = sealer.seal_drawn(half(1), NOW);
        let body = sealer.seal_drawn(ending(last), NOW);
        assert_eq!(first_half(&body), first_half(&before), "{last:04x}");
        assert_eq!(second_half(&body), ending(last), "{last:04x}");
    }
}

/// Hence one in 4096, so an epoch's length is geometric with that mean.
#[test]
fn sixteen_of_65536_endings_end_an_epoch() {
    for other in [0x00, 0x55, 0xff] {
        let ends = |last: u16| {
            let mut drawn = [other; 16];
            drawn[10..12].copy_from_slice(&last.to_be_bytes());
            ends_epoch(&drawn)
        };
        let ending: Vec<_> = (0..=u16::MAX).filter(|last| ends(*last)).collect();
        let expected: Vec<_> = (0..16).map(|high| high << 12).collect();
        assert_eq!(ending, expected);
    }
}

#[test]
fn epochs_last_4096_messages_on_average() {
    let _guard = undisturbed();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let mut epochs = HashSet::new();
    for _ in 0..16 * 4096 {
        epochs.insert(first_half(&sealer.seal(Suite::Xaes256Gcm, b"", b"")));
    }
    // Poisson with mean 16, plus the first epoch: outside once in a million runs.
    const EXPECTED: RangeInclusive<usize> = 2..=42;
    assert!(EXPECTED.contains(&epochs.len()), "{} epochs", epochs.len());
}

#[test]
fn reseeding_ends_the_epoch() {
    let _guard = disturbing();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let mut firsts = HashSet::new();
    for round in 1..=20 {
        let body = sealer.seal(Suite::KcXaes256Gcm, b"", b"");
        firsts.insert(first_half(&body));
        assert_eq!(firsts.len(), round);
        memory::reseed();
    }
}

#[test]
fn a_draw_after_a_fork_begins_an_epoch_and_is_discarded() {
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let before = sealer.seal_drawn(half(1), NOW);
    for other in [6, 8] {
        let body = sealer.seal_drawn(half(2), Some(other));
        assert_ne!(first_half(&body), first_half(&before));
        assert_ne!(second_half(&body), half(2));
        let after = sealer.seal_drawn(half(3), Some(other));
        assert_eq!(first_half(&after), first_half(&body));
    }
}

#[test]
fn where_forks_cannot_be_noticed_each_message_has_a_whole_nonce_of_its_own() {
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let of_epoch = sealer.seal_drawn(half(1), NOW);
    let mut firsts = HashSet::from([first_half(&of_epoch)]);
    for number in 0..50 {
        let body = sealer.seal_drawn(half(number), None);
        assert!(firsts.insert(first_half(&body)));
        assert_ne!(second_half(&body), half(number));
    }
    let mut fresh = Sealer::begun(BACKEND, KEY);
    fresh.seal_drawn(half(1), None);
    assert!(
        fresh.epoch.is_none_or(|epoch| Some(epoch.fork) != NOW),
        "nothing is kept for later"
    );
}

#[test]
fn a_key_that_is_expanded_again_begins_another_epoch() {
    let mut firsts = HashSet::new();
    for round in 1..=20 {
        let mut sealer = Sealer::new(BACKEND, KEY);
        for number in 0..5 {
            let body = sealer.seal_drawn(half(number), NOW);
            firsts.insert(first_half(&body));
        }
        assert_eq!(firsts.len(), 2 * round, "one that is not kept, and one that is");
    }
}

#[test]
fn no_nonce_comes_twice_in_several_threads() {
    const EACH: usize = 5000;
    let _guard = undisturbed();
    let (key, epoch) = (suite_key(BACKEND, KEY), ArcSwapOption::empty());
    let seal = || {
        let nonces = (0..EACH).map(|_| {
            let mut body = Vec::new();
            let now = epoch.load();
            let mut epochs = Epochs::new(now.as_ref());
            key.seal(&mut epochs, Suite::Xaes256Gcm, b"", b"", &mut body)
                .unwrap();
            if let Some(begun) = epochs.begun() {
                epoch.store(Some(begun));
            }
            nonce(&body)
        });
        nonces.collect::<Vec<_>>()
    };
    let nonces: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let second: HashSet<_> = nonces.iter().map(|nonce| &nonce[12..]).collect();
    assert_eq!(second.len(), 4 * EACH);
    let first: HashSet<_> = nonces.iter().map(|nonce| &nonce[..12]).collect();
    assert!(
        first.len() < 60,
        "{} epochs, so they were not shared",
        first.len()
    );
}

#[test]
fn the_public_cipher_keeps_its_epoch() {
    let _guard = undisturbed();
    let cipher = KcXaes256Gcm::new(&crate::key::DataKey::copy_from(&KEY).unwrap());
    let bodies: Vec<_> = (0..100).map(|_| cipher.seal(b"aad", b"x").unwrap()).collect();
    let first: HashSet<_> = bodies.iter().map(|body| first_half(body)).collect();
    assert!(first.len() < 20, "{} epochs", first.len());
    for body in &bodies {
        assert_eq!(oracle_opens(KEY, Suite::KcXaes256Gcm, b"aad", body), b"x");
        assert_eq!(*cipher.open(b"aad", body).unwrap(), b"x");
    }
}

#[test]
fn a_batch_draws_a_fresh_half_for_each_message() {
    const MESSAGES: usize = 500;
    let _guard = undisturbed();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let bodies = sealer.with_epochs(|key, epochs| {
        let mut batch = key.batch(MESSAGES);
        // Includes more messages than were announced.
        let bodies = (0..MESSAGES + 40).map(|_| {
            let mut body = Vec::new();
            batch
                .seal(epochs, Suite::KcXaes256Gcm, b"aad", b"the same", &mut body)
                .unwrap();
            body
        });
        bodies.collect::<Vec<_>>()
    });
    let second: HashSet<_> = bodies.iter().map(|body| second_half(body)).collect();
    assert_eq!(second.len(), bodies.len());
    let first: HashSet<_> = bodies.iter().map(|body| first_half(body)).collect();
    assert!(first.len() < 20, "{} epochs", first.len());
    let number = |half: &HalfNonce| {
        let [bytes @ .., _, _, _, _] = *half;
        u64::from_be_bytes(bytes)
    };
    for pair in bodies.windows(2) {
        let apart = number(&second_half(&pair[0])).abs_diff(number(&second_half(&pair[1])));
        assert!(apart > 1 << 16, "counted on, not drawn");
    }
    for body in &bodies {
        assert_eq!(oracle_opens(KEY, Suite::KcXaes256Gcm, b"aad", body), b"the same");
    }
}

/// Returns numbered half nonces, and records how many were asked for at once.
#[derive(Default)]
struct Numbered {
    given: u8,
    asked: Vec<usize>,
}

impl Numbered {
    fn fill(&mut self, blocks: &mut [PaddedHalf]) -> Result<Option<u64>, Infallible> {
        self.asked.push(blocks.len());
        for drawn in blocks {
            self.given += 1;
            *drawn = padded(half(self.given));
        }
        Ok(memory::fork_count())
    }
}

#[test]
fn a_batch_draws_sixteen_at_a_time_and_no_more_than_it_needs() {
    let _guard = undisturbed();
    let key = suite_key(BACKEND, KEY);
    for (messages, expected) in [
        (0, vec![1, 1, 1]),
        (1, vec![1, 1, 1]),
        (3, vec![3]),
        (16, vec![16]),
        (17, vec![16, 1]),
        (40, vec![16, 16, 8]),
    ] {
        let (mut numbered, mut batch) = (Numbered::default(), key.batch(messages));
        for number in 1..=u8::try_from(messages.max(3)).unwrap() {
            let (drawn, of) = batch.draw(|blocks| numbered.fill(blocks)).unwrap();
            assert_eq!((drawn, of), (padded(half(number)), memory::fork_count()));
        }
        assert_eq!(numbered.asked, expected, "{messages} messages");
    }
}

#[test]
fn a_batch_that_could_not_draw_uses_nothing_again() {
    let _guard = undisturbed();
    let key = suite_key(BACKEND, KEY);
    let fail = |_: &mut [PaddedHalf]| Err("no randomness");
    for (announced, taken) in [(3, 3), (16, 16), (19, 16), (19, 19), (20, 16), (36, 32)] {
        let (mut numbered, mut batch) = (Numbered::default(), key.batch(announced));
        let mut seen = HashSet::new();
        for _ in 0..taken {
            assert!(seen.insert(batch.draw(|blocks| numbered.fill(blocks)).unwrap().0));
        }
        for _ in 0..3 {
            assert!(batch.draw(fail).is_err(), "after {taken} of {announced}");
        }
        for _ in 0..40 {
            assert!(seen.insert(batch.draw(|blocks| numbered.fill(blocks)).unwrap().0));
        }
    }
}

#[test]
fn an_epoch_ends_inside_a_batch() {
    let _guard = undisturbed();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let at = [0, 5, 15];
    let bodies = sealer.with_epochs(|key, epochs| {
        let (mut batch, mut numbered) = (key.batch(16), Numbered::default());
        let bodies = (0..16).map(|number| {
            let (drawn, of) = batch
                .draw(|blocks| {
                    let of = numbered.fill(blocks)?;
                    for at in at {
                        blocks[at][..12].copy_from_slice(&ending(0));
                    }
                    Ok::<_, Infallible>(of)
                })
                .unwrap();
            assert_eq!(ends_epoch(&drawn), at.contains(&number));
            let (suite, mut body) = (Suite::KcXaes256Gcm, Vec::new());
            key.seal_drawn(epochs, &drawn, of, suite, b"aad", b"secret", &mut body)
                .unwrap();
            body
        });
        bodies.collect::<Vec<_>>()
    });
    let first: Vec<_> = bodies.iter().map(|body| first_half(body)).collect();
    assert!(first[..5].iter().all(|half| *half == first[0]));
    assert!(first[5..15].iter().all(|half| *half == first[5]));
    assert_ne!(first[0], first[5]);
    assert!(!first[..15].contains(&first[15]));
    let nonces: HashSet<_> = bodies.iter().map(|body| nonce(body)).collect();
    assert_eq!(nonces.len(), 16);
    assert!(bodies.iter().all(|body| second_half(body) != ending(0)));
    assert_eq!(
        sealer.epoch.unwrap().key.first_half,
        first[15],
        "the last that began is kept"
    );
}

#[test]
fn reseeding_between_two_messages_of_a_batch_draws_again() {
    let _guard = disturbing();
    let key = suite_key(BACKEND, KEY);
    let (mut batch, mut numbered) = (key.batch(16), Numbered::default());
    for _ in 0..3 {
        batch.draw(|blocks| numbered.fill(blocks)).unwrap();
    }
    let before = memory::fork_count();
    memory::reseed();
    let (drawn, of) = batch.draw(|blocks| numbered.fill(blocks)).unwrap();
    assert_eq!(numbered.asked, [16, 13]);
    assert_eq!(drawn, padded(half(17)), "the thirteen that were left are lost");
    assert_ne!(of, before);

    // Now the epoch ends.
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let [before, after] = sealer.with_epochs(|key, epochs| {
        let mut batch = key.batch(2);
        let mut seal = || {
            let mut body = Vec::new();
            batch
                .seal(epochs, Suite::KcXaes256Gcm, b"", b"", &mut body)
                .unwrap();
            body
        };
        let before = seal();
        memory::reseed();
        [before, seal()]
    });
    assert_ne!(first_half(&before), first_half(&after));
}

#[test]
fn a_refused_message_uses_no_half_twice() {
    let _guard = undisturbed();
    let mut sealer = Sealer::begun(BACKEND, KEY);
    let long = vec![0; crate::ciphertext::MAX_PLAINTEXT_LEN + 1];
    sealer.with_epochs(|key, epochs| {
        let (mut batch, mut seen) = (key.batch(8), HashSet::new());
        for number in 0..8 {
            let mut body = Vec::new();
            let plaintext = if number % 2 == 0 { &b""[..] } else { &long };
            match batch.seal(epochs, Suite::KcXaes256Gcm, b"", plaintext, &mut body) {
                Ok(()) => assert!(seen.insert(second_half(&body))),
                Err(SealError::TooLong { .. }) => assert_eq!(number % 2, 1),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(seen.len(), 4);
    });
}
