//! Sources of the second halves of nonces: a generator per thread, seeded by the operating system, or the system itself.

use std::cell::RefCell;
use std::sync::atomic::{Ordering, compiler_fence};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::bytes::Block;
use crate::key::{RandomError, fill_from_os};
use crate::memory;

/// The source of the second half of a nonce. The first half always comes from the operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub enum NonceSource {
    /// A generator per thread, seeded by the operating system.
    #[default]
    Thread,
    /// The operating system, each time. It needs no detection of forks and snapshots.
    OperatingSystem,
}

/// How many bytes one seed produces.
const RESEED_AFTER: usize = 64 << 10;

/// How many blocks are generated at once.
const POOL: usize = 64;

thread_local! {
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

struct Generator {
    rng: StdRng,
    fork: u64,
    /// How many more pools this seed may produce.
    left: usize,
    /// Unused blocks, from `next` on. They are handed out whole: reading a block that was written in
    /// pieces stalls the processor.
    pool: [Block; POOL],
    next: usize,
}

/// Draws a block, as [`draw`] does.
#[inline(always)]
pub(super) fn draw_one(source: NonceSource) -> Result<(Block, Option<u64>), RandomError> {
    let fork = memory::fork_count();
    let at_hand = with_generator(|generator| {
        let generator = generator
            .as_mut()
            .filter(|at| Some(at.fork) == fork && source == NonceSource::Thread)?;
        let block = *generator.pool.get(generator.next)?;
        generator.next += 1;
        Some(block)
    });
    match at_hand.flatten() {
        Some(block) => Ok((block, fork)),
        None => draw_one_slowly(source),
    }
}

#[cold]
#[inline(never)]
fn draw_one_slowly(source: NonceSource) -> Result<(Block, Option<u64>), RandomError> {
    let mut blocks = [Block::default()];
    let fork = draw(source, &mut blocks)?;
    Ok((blocks[0], fork))
}

/// Draws blocks for nonces, and returns the fork count at which they were drawn; `None` if forks cannot be detected.
///
/// The operating system supplies the bytes whenever this thread's generator cannot be used: while the thread exits,
/// when a signal handler interrupts a draw, or when forks cannot be detected.
pub(super) fn draw(source: NonceSource, blocks: &mut [Block]) -> Result<Option<u64>, RandomError> {
    let fork = memory::fork_count();
    let Some(number) = fork.filter(|_| source == NonceSource::Thread) else {
        return draw_from_os(blocks).map(|()| fork);
    };
    let drawn = with_generator(|generator| take(generator, number, blocks, fill_from_os));
    drawn.unwrap_or_else(|| draw_from_os(blocks)).map(|()| fork)
}

/// Calls a function with this thread's generator. `None`, without a call, while the thread exits, or inside a signal
/// handler that interrupted another such call.
#[inline(always)]
fn with_generator<T>(call: impl FnOnce(&mut Option<Generator>) -> T) -> Option<T> {
    let called = GENERATOR.try_with(|generator| {
        let mut generator = generator.try_borrow_mut().ok()?;
        // The mark must be set before the generator is used, and stay set until it is not. Only a signal handler could
        // notice, so the compiler would omit the mark, and both callers would get the same block.
        compiler_fence(Ordering::SeqCst);
        let done = call(&mut generator);
        compiler_fence(Ordering::SeqCst);
        Some(done)
    });
    called.ok().flatten()
}

#[cold]
fn draw_from_os(blocks: &mut [Block]) -> Result<(), RandomError> {
    fill_from_os(blocks.as_flattened_mut())
}

/// Takes blocks from the pool of this fork count, and fills a new pool if necessary.
#[inline]
fn take<E>(
    slot: &mut Option<Generator>,
    fork: u64,
    blocks: &mut [Block],
    mut seed: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    for block in blocks {
        let fresh = match slot {
            Some(generator) if generator.fork == fork => generator.pool.get(generator.next),
            _ => None,
        };
        *block = match fresh {
            Some(fresh) => *fresh,
            None => refill(slot, fork, &mut seed)?,
        };
        if let Some(generator) = slot {
            generator.next += 1;
        }
    }
    Ok(())
}

/// Fills the pool and returns its first block. Replaces a generator that has another fork count or is used up.
///
/// If there is no seed, the old generator stays but is not used, now or later.
#[cold]
fn refill<E>(
    slot: &mut Option<Generator>,
    fork: u64,
    seed: &mut impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Block, E> {
    let usable = |generator: &&mut Generator| generator.fork == fork && generator.left > 0;
    let generator = match slot.as_mut().filter(usable) {
        Some(generator) => generator,
        None => {
            let mut fresh = Zeroizing::new([0; 32]);
            seed(fresh.as_mut_slice())?;
            slot.insert(Generator {
                rng: StdRng::from_seed(*fresh),
                fork,
                left: RESEED_AFTER / size_of::<[Block; POOL]>(),
                pool: [Block::default(); POOL],
                next: 0,
            })
        }
    };
    generator.left -= 1;
    generator.rng.fill_bytes(generator.pool.as_flattened_mut());
    generator.next = 0;
    Ok(generator.pool[0])
}

#[cfg(test)]
mod tests {
    use super::NonceSource::{OperatingSystem, Thread};
    use super::*;

    type Never = std::convert::Infallible;

    /// The blocks that one seed produces.
    fn from_seed(seed: u8) -> impl FnMut() -> Block {
        let mut rng = StdRng::from_seed([seed; 32]);
        let mut pool = Vec::new();
        move || {
            if pool.is_empty() {
                let mut bytes = [Block::default(); POOL];
                rng.fill_bytes(bytes.as_flattened_mut());
                pool.extend(bytes.into_iter().rev());
            }
            pool.pop().unwrap()
        }
    }

    #[test]
    fn one_seed_serves_until_a_fork() {
        let (mut slot, mut seeds) = (None, 0);
        for (fork, draws) in [(7, 3), (7, 2 * POOL), (8, 5), (9, 1), (8, 1)] {
            let before = seeds;
            let again = slot.as_ref().is_some_and(|slot: &Generator| slot.fork == fork);
            let mut expected = from_seed(seeds + u8::from(!again));
            if again {
                (0..3).for_each(|_| _ = expected());
            }
            for _ in 0..draws {
                let seed = |seed: &mut [u8]| {
                    seeds += 1;
                    seed.fill(seeds);
                    Ok::<_, Never>(())
                };
                let mut blocks = [Block::default(); 1];
                take(&mut slot, fork, &mut blocks, seed).unwrap();
                assert_eq!(blocks, [expected()]);
            }
            assert_eq!(seeds, before + u8::from(!again));
        }
    }

    #[test]
    fn several_at_once_are_those_that_come_one_by_one() {
        let (mut slot, mut blocks) = (None, [Block::default(); 5]);
        let mut expected = from_seed(1);
        for _ in 0..POOL {
            let seed = |seed: &mut [u8]| {
                seed.fill(1);
                Ok::<_, Never>(())
            };
            take(&mut slot, 0, &mut blocks, seed).unwrap();
            assert_eq!(blocks, std::array::from_fn(|_| expected()));
        }
    }

    #[test]
    fn a_seed_gives_64_kib() {
        let (mut slot, mut seeds) = (None, 0);
        let per_seed = RESEED_AFTER / size_of::<Block>();
        for draws in 0..3 * per_seed {
            let seed = |_: &mut [u8]| {
                seeds += 1;
                Ok::<_, Never>(())
            };
            take(&mut slot, 0, &mut [Block::default()], seed).unwrap();
            assert_eq!(seeds, draws / per_seed + 1);
        }
    }

    #[test]
    fn without_a_seed_nothing_is_drawn() {
        let (mut slot, mut blocks) = (None, [Block::default()]);
        assert_eq!(
            take(&mut slot, 0, &mut blocks, |_| Err("no seed")),
            Err("no seed")
        );
        take(&mut slot, 0, &mut blocks, |_| Ok::<_, Never>(())).unwrap();
        for _ in 0..2 {
            // The generator from before the fork still exists, but must not be used.
            let mut blocks = [Block::default()];
            assert_eq!(
                take(&mut slot, 1, &mut blocks, |_| Err("no seed")),
                Err("no seed")
            );
            assert_eq!(blocks, [Block::default()]);
        }
    }

    #[test]
    fn reseeding_reaches_every_thread() {
        let seen = || GENERATOR.with_borrow(|generator| generator.as_ref().unwrap().fork);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (ready, begun) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            draw(Thread, &mut [Block::default()]).unwrap();
            let before = seen();
            ready.send(()).unwrap();
            wait.recv().unwrap();
            draw(Thread, &mut [Block::default()]).unwrap();
            (before, seen())
        });
        draw(Thread, &mut [Block::default()]).unwrap();
        let before = seen();
        begun.recv().unwrap();
        memory::reseed();
        go.send(()).unwrap();
        draw(Thread, &mut [Block::default()]).unwrap();
        assert!(seen() > before);
        let (before, after) = other.join().unwrap();
        assert!(after > before);
    }

    #[test]
    fn a_generator_in_use_or_gone_is_not_needed() {
        let mut blocks = [Block::default(); 2];
        GENERATOR.with_borrow_mut(|_| draw(Thread, &mut blocks)).unwrap();
        assert!(!blocks.contains(&Block::default()));
        let at_hand = draw_one(Thread).unwrap().0;
        let next = GENERATOR.with_borrow(|generator| generator.as_ref().unwrap().next);
        let (other, _) = GENERATOR.with_borrow_mut(|_| draw_one(Thread)).unwrap();
        assert!(other != at_hand && other != Block::default());
        let after = GENERATOR.with_borrow(|generator| generator.as_ref().unwrap().next);
        assert_eq!(after, next, "the generator was in use and gave nothing");
    }

    #[test]
    fn the_operating_system_gives_every_byte() {
        let mut blocks = [Block::default(); 2];
        draw(OperatingSystem, &mut blocks).unwrap();
        assert!(!blocks.contains(&Block::default()));
        assert_ne!(draw_one(OperatingSystem).unwrap().0, Block::default());
        assert!(GENERATOR.with_borrow(Option::is_none));
    }
}
