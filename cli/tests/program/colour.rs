//! Colour and progress bars: only on a terminal, and no colour where `NO_COLOR` is set.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::sealed::{SSN, add_rows, create_table};
use crate::support::{Database, Place};

/// Begins every sequence that controls a terminal.
const ESCAPE: char = '\u{1b}';

/// Runs the program on a terminal. Returns its exit code and what it wrote there.
fn on_terminal(place: &Place, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal: OwnedFd = File::options().read(true).write(true).open(name).unwrap().into();
    let size = Winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal.as_fd(), size).unwrap();
    let mut command = place.command(args);
    command
        .env("TERM", "xterm-256color")
        .envs(env.iter().copied())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal);
    let mut child = command.spawn().unwrap();
    // It has the terminal open too.
    drop(command);
    let (mut written, mut master) = (Vec::new(), File::from(master));
    // Fails once no process has the terminal open.
    let _ = master.read_to_end(&mut written);
    (child.wait().unwrap().code(), String::from_utf8(written).unwrap())
}

/// Tells whether a text sets a colour, a weight or the like: `ESC [ .. m`.
fn has_colour(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| rest[end..].starts_with('m'))
    })
}

#[test]
fn help_and_errors_are_coloured_on_a_terminal_unless_no_color_is_set() {
    let place = Place::bare(Database::Sqlite);
    for (args, code) in [(&["--help"][..], 0), (&["keys", "list", "--nonsense"], 1)] {
        let (ended, shown) = on_terminal(&place, args, &[]);
        assert_eq!(ended, Some(code), "{shown}");
        assert!(has_colour(&shown), "{shown:?}");
        // Set to nothing, it does not count: no-color.org.
        let (_, shown) = on_terminal(&place, args, &[("NO_COLOR", "")]);
        assert!(has_colour(&shown), "{shown:?}");
        for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let (ended, plain) = on_terminal(&place, args, &[variable]);
            assert_eq!(ended, Some(code), "{plain}");
            assert!(plain.contains("--help"), "{plain:?}");
            assert!(!plain.contains(ESCAPE), "{variable:?}: {plain:?}");
        }
        let piped = place.run(args).expect(code);
        assert!(!format!("{}{}", piped.stdout, piped.stderr).contains(ESCAPE));
    }
}

#[test]
fn tables_and_messages_have_no_colour() {
    let place = Place::new(Database::Sqlite);
    place.create("tenantId=t-1");
    for args in [
        &["keys", "list"][..],
        &["status"],
        &["doctor"],
        &["keys", "show", "0190163d-8694-739a-abb7-1bb3fa4d6a6f"],
        &["keys", "needs-rotation"],
    ] {
        for env in [&[][..], &[("NO_COLOR", "1")]] {
            let (_, shown) = on_terminal(&place, args, env);
            assert!(!shown.contains(ESCAPE), "{args:?}: {shown:?}");
            assert!(shown.len() > 10, "{args:?}: {shown:?}");
        }
    }
}

/// A bar moves the cursor, which is no colour. A terminal that cannot do that has none.
#[test]
fn a_bar_is_shown_on_a_terminal_that_can_and_has_no_colour() {
    let place = Place::new(Database::Sqlite);
    place.write_private("encx.toml", SSN);
    create_table(&place, "users");
    add_rows(&place, "users", 0..40, 2);
    let verify = ["verify", "--all", "--throttle", "40"];
    for (env, has_bar) in [
        (&[][..], true),
        (&[("NO_COLOR", "1")], true),
        (&[("TERM", "dumb")], false),
    ] {
        let (ended, shown) = on_terminal(&place, &verify, env);
        assert_eq!(ended, Some(0), "{shown}");
        assert!(!has_colour(&shown), "{env:?}: {shown:?}");
        assert_eq!(shown.contains("left)"), has_bar, "{env:?}: {shown:?}");
        assert_eq!(shown.contains(ESCAPE), has_bar, "{env:?}: {shown:?}");
    }
    let piped = place.run(&verify).expect(0);
    assert!(!format!("{}{}", piped.stdout, piped.stderr).contains(ESCAPE));
}
