//! Where nonces come from: a generator per thread, seeded by the operating system.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::generation;
use crate::key::{RandomError, fill_from_os};

/// How much one seed gives, in bytes.
const RESEED_AFTER: usize = 64 << 10;

thread_local! {
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

struct Generator {
    rng: StdRng,
    generation: u64,
    left: usize,
}

/// Fills a buffer with bytes that make a nonce, and returns the generation that they were drawn in; `None` if forks
/// cannot be noticed.
///
/// Whenever this thread's generator cannot be used, the operating system gives the bytes: while the thread ends,
/// when a signal handler interrupts a draw, or when forks cannot be noticed.
#[inline]
pub(super) fn fill(buffer: &mut [u8]) -> Result<Option<u64>, RandomError> {
    let generation = generation::current();
    let in_generation = |()| generation;
    let Some(number) = generation.filter(|_| !cfg!(feature = "os-nonces")) else {
        return fill_from_os(buffer).map(in_generation);
    };
    let drawn = GENERATOR.try_with(|generator| {
        let mut generator = generator.try_borrow_mut().ok()?;
        Some(draw(&mut generator, number, buffer, fill_from_os))
    });
    match drawn {
        Ok(Some(drawn)) => drawn.map(in_generation),
        Ok(None) | Err(_) => fill_from_os(buffer).map(in_generation),
    }
}

/// Draws from a generator that is of this generation and not used up, seeding a new one if need be.
///
/// If no seed can be had, the old generator stays but is not asked, now or later.
#[inline]
fn draw<E>(
    slot: &mut Option<Generator>,
    generation: u64,
    buffer: &mut [u8],
    seed: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let usable =
        |generator: &&mut Generator| generator.generation == generation && generator.left >= buffer.len();
    let generator = match slot.as_mut().filter(usable) {
        Some(generator) => generator,
        None => {
            let mut fresh = Zeroizing::new([0; 32]);
            seed(fresh.as_mut_slice())?;
            slot.insert(Generator {
                rng: StdRng::from_seed(*fresh),
                generation,
                left: RESEED_AFTER,
            })
        }
    };
    generator.left = generator.left.saturating_sub(buffer.len());
    generator.rng.fill_bytes(buffer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Never = std::convert::Infallible;

    fn from_seed(seed: u8, skip: usize) -> [u8; 24] {
        let mut rng = StdRng::from_seed([seed; 32]);
        let mut bytes = [0; 24];
        (0..=skip).for_each(|_| rng.fill_bytes(&mut bytes));
        bytes
    }

    #[test]
    fn one_seed_serves_until_the_generation_changes() {
        let (mut slot, mut seeds, mut bytes) = (None, 0, [0; 24]);
        for (generation, expected) in [
            (7, from_seed(1, 0)),
            (7, from_seed(1, 1)),
            (8, from_seed(2, 0)),
            (8, from_seed(2, 1)),
            (9, from_seed(3, 0)),
        ] {
            let seed = |seed: &mut [u8]| {
                seeds += 1;
                seed.fill(seeds);
                Ok::<_, Never>(())
            };
            draw(&mut slot, generation, &mut bytes, seed).unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_seed_gives_64_kib() {
        let (mut slot, mut seeds, mut bytes) = (None, 0, [0; 24]);
        let per_seed = RESEED_AFTER / bytes.len();
        for draws in 0..3 * per_seed {
            let seed = |_: &mut [u8]| {
                seeds += 1;
                Ok::<_, Never>(())
            };
            draw(&mut slot, 0, &mut bytes, seed).unwrap();
            assert_eq!(seeds, draws / per_seed + 1);
        }
    }

    #[test]
    fn without_a_seed_nothing_is_drawn() {
        let (mut slot, mut bytes) = (None, [0; 24]);
        assert_eq!(draw(&mut slot, 0, &mut bytes, |_| Err("no seed")), Err("no seed"));
        draw(&mut slot, 0, &mut bytes, |_| Ok::<_, Never>(())).unwrap();
        for _ in 0..2 {
            // The generator of an older generation is there, and must not be asked.
            let mut bytes = [0; 24];
            assert_eq!(draw(&mut slot, 1, &mut bytes, |_| Err("no seed")), Err("no seed"));
            assert_eq!(bytes, [0; 24]);
        }
    }

    #[cfg(not(feature = "os-nonces"))]
    #[test]
    fn reseeding_reaches_every_thread() {
        let seen = || GENERATOR.with_borrow(|generator| generator.as_ref().unwrap().generation);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (ready, begun) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            fill(&mut [0; 24]).unwrap();
            let before = seen();
            ready.send(()).unwrap();
            wait.recv().unwrap();
            fill(&mut [0; 24]).unwrap();
            (before, seen())
        });
        fill(&mut [0; 24]).unwrap();
        let before = seen();
        begun.recv().unwrap();
        generation::reseed();
        go.send(()).unwrap();
        fill(&mut [0; 24]).unwrap();
        assert!(seen() > before);
        let (before, after) = other.join().unwrap();
        assert!(after > before);
    }

    #[cfg(not(feature = "os-nonces"))]
    #[test]
    fn a_generator_in_use_or_gone_is_not_needed() {
        let mut bytes = [0; 24];
        GENERATOR.with_borrow_mut(|_| fill(&mut bytes)).unwrap();
        assert_ne!(bytes, [0; 24]);
    }

    #[cfg(feature = "os-nonces")]
    #[test]
    fn the_operating_system_gives_every_byte() {
        let mut bytes = [0; 24];
        fill(&mut bytes).unwrap();
        assert_ne!(bytes, [0; 24]);
        assert!(GENERATOR.with_borrow(Option::is_none));
    }
}
