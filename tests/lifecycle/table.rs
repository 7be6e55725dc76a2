//! The table in the documentation matches the code.

use encx::keys::KeyState;

const DOCS: &str = include_str!("../../docs/key-lifecycle.md");

#[test]
fn the_drawn_transitions_are_those_of_the_code() {
    let cells = |line: &'static str| -> Vec<&'static str> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(str::trim).collect()
    };
    let mut lines = DOCS.lines().skip_while(|line| !line.starts_with("| from |"));
    let header: Vec<_> = cells(lines.next().unwrap())[1..]
        .iter()
        .map(|name| KeyState::from_name(name).unwrap())
        .collect();
    assert_eq!(header, KeyState::ALL);
    let rows: Vec<_> = lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert_eq!(rows.len(), KeyState::ALL.len());
    let origins = [KeyState::PreActive, KeyState::Active, KeyState::Deactivated];
    for (row, from) in rows.iter().zip(KeyState::ALL) {
        assert_eq!(row[0], from.name());
        assert_eq!(row.len(), 1 + header.len());
        for (cell, to) in row[1..].iter().zip(&header) {
            for suspended_from in origins {
                let expected = match *cell {
                    "yes" => true,
                    "back" => suspended_from == *to,
                    "itself" | "" => false,
                    other => panic!("what does {other:?} mean?"),
                };
                let may = from.may_become(*to, Some(suspended_from));
                assert_eq!(may, expected, "{from} to {to}, suspended from {suspended_from}");
            }
        }
    }
}
