//! Everything at once: epochs, threads, batches, forks, keys that are evicted and reloaded, in any order.

use std::collections::{HashMap, HashSet};
use std::thread;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::Backend;
use crate::bytes::HalfNonce;
use crate::ciphertext::{COMMITMENT_LEN, Suite};
use crate::memory;
use crate::tests::support::{Sealer, disturbing, first_half, oracle_opens, second_half};

/// How many there are of each: sealers stand for processes, as far as one process can show that.
const PLACES: usize = 3;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One message.
    Seal(Index, Suite, usize),
    /// Messages of one batch, with a fork before the given one, if it is in the batch.
    Batch(Index, Suite, usize, usize),
    /// A draw that ends the epoch.
    End(Index),
    Fork,
    /// This many messages in each of three threads, which share an epoch.
    Threads(Index, Suite, usize),
    /// The data key is dropped and expanded again.
    EvictSealer(Index),
    EvictOpener(Index),
    /// An earlier message, opened in place or not.
    Open(Index, Index, bool),
    /// The same, changed at the given place.
    OpenForged(Index, Index, Index, bool),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    key: [u8; 32],
    steps: Vec<Step>,
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let suite = || prop::sample::select(&Suite::ALL[..]);
    let step = prop_oneof![
        4 => (any::<Index>(), suite(), 0..100_usize).prop_map(|(at, suite, len)| Step::Seal(at, suite, len)),
        2 => (any::<Index>(), suite(), 0..40_usize, 0..80_usize)
            .prop_map(|(at, suite, count, fork)| Step::Batch(at, suite, count, fork)),
        1 => any::<Index>().prop_map(Step::End),
        1 => Just(Step::Fork),
        1 => (any::<Index>(), suite(), 1..12_usize)
            .prop_map(|(at, suite, count)| Step::Threads(at, suite, count)),
        1 => any::<Index>().prop_map(Step::EvictSealer),
        1 => any::<Index>().prop_map(Step::EvictOpener),
        12 => (any::<Index>(), any::<Index>(), any::<bool>())
            .prop_map(|(at, which, in_place)| Step::Open(at, which, in_place)),
        3 => (any::<Index>(), any::<Index>(), any::<Index>(), any::<bool>())
            .prop_map(|(at, which, byte, in_place)| Step::OpenForged(at, which, byte, in_place)),
    ];
    (any::<[u8; 32]>(), prop::collection::vec(step, 1..80)).prop_map(|(key, steps)| Plan { key, steps })
}

struct Message {
    suite: Suite,
    plaintext: Vec<u8>,
    body: Vec<u8>,
}

const AAD: &[u8] = b"table, column, row";

/// The byte of which a numbered plaintext consists.
fn byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

/// Seals with one backend and opens with another.
pub(crate) fn run(writer: Backend, reader: Backend, Plan { key, steps }: &Plan) {
    let _guard = disturbing();
    let mut sealers: [Sealer; PLACES] = std::array::from_fn(|_| Sealer::new(writer, *key));
    let mut openers: [Sealer; PLACES] = std::array::from_fn(|_| Sealer::new(reader, *key));
    let mut messages = Messages::default();
    let (mut forks, mut evictions) = (0, [0; PLACES]);
    for (number, step) in steps.iter().enumerate() {
        // Messages may share a first half only within one expansion of the key, between two forks.
        let life = |at: usize, forks: usize| (at, evictions[at], forks);
        match step {
            Step::Seal(at, suite, len) => {
                let (at, plaintext) = (at.index(PLACES), vec![byte(number); *len]);
                let body = sealers[at].seal(*suite, AAD, &plaintext);
                messages.add(life(at, forks), *suite, plaintext, body);
            }
            Step::Batch(at, suite, count, fork) => {
                let at = at.index(PLACES);
                sealers[at].with_epochs(|key, epochs| {
                    let mut batch = key.batch(*count);
                    for number in 0..*count {
                        if number == *fork {
                            memory::reseed();
                            forks += 1;
                        }
                        let (plaintext, mut body) = (vec![byte(number); number], Vec::new());
                        batch.seal(epochs, *suite, AAD, &plaintext, &mut body).unwrap();
                        messages.add(life(at, forks), *suite, plaintext, body);
                    }
                });
            }
            Step::End(at) => {
                let at = at.index(PLACES);
                let body = sealers[at].seal_drawn([0; 12], memory::fork_count());
                assert_ne!(second_half(&body), [0; 12]);
                assert_eq!(oracle_opens(*key, Suite::KcXaes256Gcm, b"aad", &body), b"secret");
                messages.note(life(at, forks), &body);
            }
            Step::Fork => {
                memory::reseed();
                forks += 1;
            }
            Step::Threads(at, suite, count) => {
                let at = at.index(PLACES);
                let Sealer { key, epoch } = &sealers[at];
                let seal = || {
                    let mut epochs = crate::Epochs::new(epoch.as_ref());
                    let bodies = (0..*count).map(|number| {
                        let mut body = Vec::new();
                        key.seal(&mut epochs, *suite, AAD, &[byte(number)], &mut body)
                            .unwrap();
                        body
                    });
                    bodies.collect::<Vec<_>>()
                };
                let sealed = thread::scope(|scope| {
                    let threads = [(); 3].map(|()| scope.spawn(seal));
                    threads.map(|thread| thread.join().unwrap())
                });
                for bodies in sealed {
                    for (number, body) in bodies.into_iter().enumerate() {
                        messages.add(life(at, forks), *suite, vec![byte(number)], body);
                    }
                }
            }
            Step::EvictSealer(at) => {
                let at = at.index(PLACES);
                sealers[at] = Sealer::new(writer, *key);
                evictions[at] += 1;
            }
            Step::EvictOpener(at) => openers[at.index(PLACES)] = Sealer::new(reader, *key),
            Step::Open(at, which, in_place) => {
                if let Some(message) = messages.get(which) {
                    open(&openers[at.index(PLACES)], message, *in_place);
                }
            }
            Step::OpenForged(at, which, byte, in_place) => {
                if let Some(Message { suite, body, .. }) = messages.get(which) {
                    let mut forged = body.clone();
                    forged[byte.index(body.len())] ^= 1;
                    let opener = &openers[at.index(PLACES)];
                    if *in_place {
                        let opened = opener.key.open_in_place(None, *suite, AAD, &mut forged, 0);
                        assert!(opened.is_err() && forged.is_empty());
                    } else {
                        assert!(opener.key.open(None, *suite, AAD, &forged).is_err());
                    }
                }
            }
        }
    }
    // Every message opens with an opener, with every sealer and with the oracle.
    for message in &messages.list {
        open(&openers[0], message, true);
        for sealer in &sealers {
            open(sealer, message, false);
        }
        let oracle = oracle_opens(*key, message.suite, AAD, &message.body);
        assert_eq!(oracle, message.plaintext);
    }
}

fn open(by: &Sealer, message: &Message, in_place: bool) {
    let Message {
        suite,
        plaintext,
        body,
    } = message;
    let epoch = by.epoch.as_deref();
    if in_place {
        let mut buffer = body.clone();
        by.key.open_in_place(epoch, *suite, AAD, &mut buffer, 0).unwrap();
        assert_eq!(buffer, *plaintext);
    } else {
        assert_eq!(*by.key.open(epoch, *suite, AAD, body).unwrap(), *plaintext);
    }
}

#[derive(Default)]
struct Messages {
    list: Vec<Message>,
    /// The owner of each first half.
    first: HashMap<HalfNonce, (usize, usize, usize)>,
    second: HashSet<HalfNonce>,
}

impl Messages {
    fn get(&self, which: &Index) -> Option<&Message> {
        (!self.list.is_empty()).then(|| which.get(&self.list))
    }

    fn add(&mut self, life: (usize, usize, usize), suite: Suite, plaintext: Vec<u8>, body: Vec<u8>) {
        self.note(life, &body);
        let committed = suite == Suite::KcXaes256Gcm;
        assert_eq!(
            body.len(),
            24 + plaintext.len() + 16 + if committed { COMMITMENT_LEN } else { 0 }
        );
        self.list.push(Message {
            suite,
            plaintext,
            body,
        });
    }

    fn note(&mut self, life: (usize, usize, usize), body: &[u8]) {
        let of = *self.first.entry(first_half(body)).or_insert(life);
        assert_eq!(of, life, "an epoch outlived a fork, or its data key");
        assert!(self.second.insert(second_half(body)), "a half came twice");
    }
}
