//! Pickles of Python and numpy, and programs that are none of theirs.

use super::*;

fn numbers(pickle: &[u8]) -> Result<Vec<Vec<f64>>, String> {
    let rows = read_rows(pickle)?;
    Ok(rows.iter().map(|row| row.numbers().map(Number::as_f64).collect()).collect())
}

fn error(pickle: &[u8]) -> String {
    numbers(pickle).unwrap_err()
}

/// Real pickles, by numpy, protocol and kind of rows.
fn samples() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    let lines = include_str!("../testdata/pickles.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let [_, _, kind, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (line.split_at(12).0, kind, bytes.collect())
    })
}

#[test]
fn reads_what_python_and_numpy_wrote() {
    for (source, kind, pickle) in samples() {
        let expected: [&[f64]; 2] = match kind {
            "img" => [&[0.0, 36.0, 72.0, 108.0], &[144.0, 180.0, 216.0, 252.0]],
            "lab" => [&[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]],
            _ => [&[1.0, 300.0, -5.0, 2.5], &[7.0, 8.0, 9.0, 1_099_511_627_776.0]],
        };
        assert_eq!(numbers(&pickle).unwrap(), expected, "{source}");
    }
    assert!(samples().count() > 30);
}

#[test]
fn every_cut_is_an_error() {
    for (source, _, pickle) in samples() {
        for end in 0..pickle.len() {
            assert!(read_rows(&pickle[..end]).is_err(), "{source} {end}");
        }
    }
}

#[test]
fn nothing_else_is_understood_and_nothing_is_run() {
    let never = "is not one of numpy's arrays; pickles are never executed";
    assert_eq!(
        error(b"cos\nsystem\n(S'true'\ntR."),
        format!("byte 0 of the pickle: the global `os.system` {never}")
    );
    let stack_global = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.";
    assert_eq!(error(stack_global), format!("byte 18 of the pickle: the global `builtins.eval` {never}"));
    for (pickle, opcode) in [
        (&b"(S'true'\nios\nsystem\n."[..], "INST (0x69)"),
        (b"\x80\x02}.", "EMPTY_DICT (0x7d)"),
        (b"\x80\x02)\x81.", "NEWOBJ (0x81)"),
        (b"\x80\x05\x97.", "NEXT_BUFFER (0x97)"),
        (b"\x80\x05]2.", "DUP (0x32)"),
        (b"\xff", "unknown (0xff)"),
    ] {
        assert!(error(pickle).contains(&format!("the opcode {opcode} is none that")), "{}", error(pickle));
    }
}

#[test]
fn repeating_by_reference_does_not_multiply_memory() {
    let row = [b"\x80\x03](](".to_vec(), b"K\x01".repeat(1000), b"eq\x00".to_vec()].concat();
    assert_eq!(numbers(&[&row[..], b"e."].concat()).unwrap(), [vec![1.0; 1000]]);
    assert!(error(&[&row[..], &b"h\x00".repeat(1000), b"e."].concat()).contains("repeats its rows"));
    let text =
        [b"(X\xe8\x03\x00\x00".to_vec(), vec![b'a'; 1000], b"q\x00X\x06\x00\x00\x00latin1q\x01".to_vec()]
            .concat();
    let encode = b"c_codecs\nencode\nh\x00h\x01\x86R".repeat(1000);
    assert!(error(&[text, encode, b"l.".to_vec()].concat()).contains("encodes more text than it holds"));
}

#[test]
fn wrong_programs_are_errors() {
    for (pickle, message) in [
        (&b"."[..], "expected more values on the stack"),
        (b"(.", "expected more values on the stack"),
        (b"e.", "expected a mark on the stack"),
        (b"K\x01.", "expected a list of rows"),
        (b"](K\x01e.", "expected a row: an array, a list or a tuple"),
        (b"](](NeK\x01e.", "expected a number in each column of a row"),
        (b"K\x01K\x01a", "expected a list to append to"),
        (b"h\x05.", "expected a remembered value, number 5 is none"),
        (b"Ix\n.", "expected a number, found `x`"),
        (b"\x80\x06.", "expected protocol 0 to 5, found 6"),
        (b"\x8a\x09123456789.", "expected an integer of at most 8 bytes, found 9"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", ENDS),
        (
            b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
            "expected a dtype u1, u2, u4, i1, i2, i4, i8, f4 or f8, found `O8`",
        ),
        (b"cnumpy\nndarray\n)R.", "a global is called with arguments it does not take"),
        (
            b"](cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btRe.",
            "expected an array, found one without data",
        ),
    ] {
        assert!(error(pickle).contains(message), "{}", error(pickle));
    }
}
