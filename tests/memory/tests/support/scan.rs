//! The search of another process's memory.

use std::collections::BTreeSet;
use std::fs::{File, read_to_string};
use std::io;
use std::os::unix::fs::FileExt;

use super::child::Child;
use super::needles::Needles;

const CHUNK: usize = 1 << 16;

/// Finds which needles, by number, are in the memory that a process can write to.
pub(crate) fn found(child: &Child, needles: &Needles) -> BTreeSet<usize> {
    // Idle threads release memory, which the next list of mappings shows.
    let mut searches = std::iter::repeat_with(|| search(child, needles)).take(100);
    searches.find_map(Result::ok).expect("its memory can be read")
}

fn search(child: &Child, needles: &Needles) -> io::Result<BTreeSet<usize>> {
    let needles: Vec<_> = needles.iter().collect();
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap();
    let mut by_start = vec![Vec::new(); 1 << 16];
    for (number, needle) in needles.iter().enumerate() {
        by_start[start(needle)].push(number);
    }
    let mut found = BTreeSet::new();
    let memory = File::open(format!("/proc/{}/mem", child.id()))?;
    let mut buffer = vec![0; CHUNK + longest];
    let zeros = vec![0; CHUNK + longest];
    for (from, to) in writable(child) {
        let mut at = from;
        while at < to {
            // Includes some bytes of the next block: a needle may cross the border.
            let len = usize::try_from(to - at).unwrap().min(buffer.len());
            let bytes = &mut buffer[..len];
            memory.read_exact_at(bytes, at)?;
            if bytes != &zeros[..len] {
                for (place, pair) in bytes.windows(2).enumerate() {
                    for number in &by_start[start(pair)] {
                        if bytes[place..].starts_with(needles[*number]) {
                            found.insert(*number);
                        }
                    }
                }
            }
            at += CHUNK as u64;
        }
    }
    Ok(found)
}

fn start(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Lists the ranges that a process can write to.
fn writable(child: &Child) -> Vec<(u64, u64)> {
    let maps = read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).unwrap();
        rest.starts_with("rw").then(|| (number(from), number(to)))
    });
    let ranges: Vec<_> = ranges.collect();
    let stack = |line: &&str| line.ends_with("[stack]");
    assert!(
        maps.lines().any(|line| stack(&line)) && ranges.len() > 3,
        "{maps}"
    );
    ranges
}
