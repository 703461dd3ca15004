use super::*;
use crate::hash::StateHasher;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn header() -> Header {
    Header {
        cluster_id: Uuid::from_u128(7),
        cluster_name: "north".to_owned(),
        node: 2,
        release: "0.1.0".to_owned(),
        revision: 19,
        term: 3,
        feature_level: 1,
        log_time_ms: 1_700_000_000_000,
        taken_at_ms: 1_700_000_000_001,
        journal_floor: 4,
        node_max: 3,
    }
}

fn write(rows: &Rows) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&header(), &mut file);
    for (key, value) in rows {
        writer.row(key, value, &mut file);
    }
    writer.end(&mut file);
    file
}

fn read(file: &[u8], piece: usize) -> Result<(Summary, Rows), Damage> {
    let mut reader = Reader::new();
    let mut rows = Rows::new();
    for piece in file.chunks(piece) {
        reader.feed(piece);
        while let Some(part) = reader.next_part()? {
            if let Part::Rows(some) = part {
                rows.extend(some);
            }
        }
    }
    Ok((reader.finish()?, rows))
}

fn some_rows() -> Rows {
    (0..400_u32)
        .map(|number| {
            (
                number.to_be_bytes().to_vec(),
                vec![number as u8; 9 * number as usize],
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn rows_return(
        rows in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 1..20), proptest::collection::vec(any::<u8>(), 0..300), 0..40
        ),
        piece in 1_usize..500,
    ) {
        let file = write(&rows);
        let (summary, found) = read(&file, piece).expect("whole");
        prop_assert_eq!(&found, &rows);
        prop_assert_eq!(summary.header, header());
        prop_assert_eq!(summary.trailer.rows, rows.len() as u64);
        prop_assert_eq!(summary.bytes, file.len() as u64);
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let rows = some_rows().into_iter().take(40).collect();
    let file = write(&rows);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x20;
        let error = read(&damaged, 4096).expect_err("damaged");
        match at {
            0..8 => assert_eq!(error, Damage::NotABackup, "byte {at}"),
            8..12 => assert!(matches!(error, Damage::Version { .. }), "byte {at}: {error}"),
            _ => assert!(
                matches!(
                    error,
                    Damage::Checksum { .. } | Damage::Frame { .. } | Damage::Cut { .. }
                ),
                "byte {at}: {error}"
            ),
        }
    }
}

#[test]
fn a_file_that_was_cut_anywhere_is_told_from_a_whole_one() {
    let file = write(&some_rows());
    for end in (0..file.len()).step_by(3999).chain([file.len() - 1]) {
        let error = read(&file[..end], 1000).expect_err("cut");
        match end {
            0 => assert_eq!(error, Damage::NotABackup),
            _ => assert_eq!(error, Damage::Cut { bytes: end as u64 }),
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert_eq!(
        read(&longer, 1000).expect_err("longer"),
        Damage::Trailing {
            offset: file.len() as u64
        }
    );
}

#[test]
fn frames_have_their_places() {
    let file = write(&some_rows());
    // Where each frame begins.
    let mut starts = vec![PREFIX_BYTES];
    while let Some(&at) = starts.last().filter(|at| **at < file.len()) {
        let length = u32::from_le_bytes(file[at + 1..at + 5].try_into().expect("4 bytes")) as usize;
        starts.push(at + FRAME_HEAD_BYTES + length);
    }
    assert!(
        starts.len() > 4,
        "a header, several frames of rows, a trailer, the end"
    );
    let without = [&file[..starts[1]], &file[starts[2]..]].concat();
    let twice = [&file[..starts[2]], &file[starts[1]..]].concat();
    for wrong in [without, twice] {
        let error = read(&wrong, 4096).expect_err("out of place");
        assert!(matches!(error, Damage::Checksum { .. }), "{error}");
    }
}

#[test]
fn bytes_are_pinned() {
    let rows = Rows::from([(b"k".to_vec(), b"value".to_vec())]);
    let file = write(&rows);
    let json = r#"{"cluster_id":"00000000-0000-0000-0000-000000000007","cluster_name":"north","node":2,"release":"0.1.0","revision":19,"term":3,"feature_level":1,"log_time_ms":1700000000000,"taken_at_ms":1700000000001,"journal_floor":4,"node_max":3}"#;
    let mut expected = b"ONWARDBK\x01\0\0\0".to_vec();
    let bodies: [(u8, &[u8]); 3] = [
        (1, json.as_bytes()),
        (2, b"\x01\0\0\0\x05\0\0\0kvalue"),
        (3, br#"{"rows":1,"state_hash":"HASH"}"#),
    ];
    for (number, (kind, body)) in bodies.into_iter().enumerate() {
        let mut hasher = StateHasher::new(crate::Revision(4));
        hasher.row(b"k", b"value");
        let hash = format!("{:016x}", hasher.finish());
        let body = String::from_utf8_lossy(body).replace("HASH", &hash).into_bytes();
        let checked = [
            &(number as u64).to_le_bytes()[..],
            &[kind],
            &(body.len() as u32).to_le_bytes(),
            &body,
        ]
        .concat();
        expected.push(kind);
        expected.extend_from_slice(&(body.len() as u32).to_le_bytes());
        expected.extend_from_slice(&crc32fast::hash(&checked).to_le_bytes());
        expected.extend_from_slice(&body);
    }
    assert_eq!(String::from_utf8_lossy(&file), String::from_utf8_lossy(&expected));
    assert_eq!(file, expected);
}
