//! Tar shards: written from a folder, and read as the folder is.

use std::path::PathBuf;

use super::*;

/// The folder's shards, each of at least `size` bytes.
fn packed(folder: &Path, size: u64) -> (TempDir, Vec<PathBuf>) {
    let out = TempDir::new().unwrap();
    let shards = pack(&data("folder", folder), out.path(), size).unwrap().shards;
    (out, shards)
}

fn opened(root: &Path) -> Result<Stream> {
    open(data("shards", root), 2)
}

#[test]
fn a_run_on_shards_is_the_run_on_the_folder_however_many_there_are() {
    let dir = folder();
    let of_folder = open(data("folder", dir.path()), 2).unwrap();
    let batches = take(&of_folder, cursor(0, 6), 5);
    let tested: Vec<Images> =
        of_folder.in_order(Split::Test, 0..of_folder.split_len(Split::Test), 2).collect::<Result<_>>().unwrap();
    let mut hashes = Vec::new();
    for (size, count) in [(1, 24), (4_000, 0), (1 << 30, 2)] {
        let (out, shards) = packed(dir.path(), size);
        assert!(count == 0 || shards.len() == count, "{shards:?}");
        let stream = opened(out.path()).unwrap();
        assert_eq!((stream.classes(), stream.class_counts()), (of_folder.classes(), of_folder.class_counts()));
        assert!(same(&batches, &take(&stream, cursor(0, 6), 5)), "{size}");
        assert!(
            same(
                &tested,
                &stream.in_order(Split::Test, 0..stream.split_len(Split::Test), 2).collect::<Result<Vec<_>>>().unwrap()
            ),
            "{size}"
        );
        hashes.push(stream.sha256());
    }
    assert!(hashes.iter().all(|hash| *hash != of_folder.sha256()));
}

#[test]
fn shards_are_plain_ustar_shuffled_and_the_same_each_time() {
    let dir = folder();
    let ((one, shards), (two, _)) = (packed(dir.path(), 1 << 30), packed(dir.path(), 1 << 30));
    let mut labels = Vec::new();
    for path in &shards {
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes, fs::read(two.path().join(path.file_name().unwrap())).unwrap());
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap().map(|entry| entry.unwrap()) {
            names.push(entry.path().unwrap().display().to_string());
            if names.len() % 2 == 0 && path.ends_with("train-000000.tar") {
                labels.extend(std::io::Read::bytes(entry).map(|byte| byte.unwrap()));
            }
        }
        for pair in names.chunks_exact(2) {
            let key = |name: &str| name.split_once('.').unwrap().0.to_string();
            assert!(key(&pair[0]) == key(&pair[1]) && pair[1].ends_with(".cls") && pair[0].len() <= 100, "{pair:?}");
        }
    }
    // 11 of class 0 and 8 of class 1, mixed.
    assert_eq!(labels.iter().filter(|label| **label == b'0').count(), 11);
    assert!(labels.windows(2).filter(|pair| pair[0] != pair[1]).count() > 3, "{labels:?}");
    assert_eq!(fs::read_to_string(one.path().join("classes.txt")).unwrap(), "a\nb\n");
    let left: Vec<_> = fs::read_dir(one.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    fs::remove_file(one.path().join("classes.txt")).unwrap();
    assert_eq!(opened(one.path()).unwrap().classes(), ["0", "1"]);
}

#[test]
fn shards_that_are_cut_off_are_refused() {
    let dir = folder();
    let (out, shards) = packed(dir.path(), 1 << 30);
    let whole = fs::read(&shards[0]).unwrap();
    for length in [0, 100, 512, 700, whole.len() / 2, whole.len() - 1024, whole.len() - 1700] {
        fs::write(&shards[0], &whole[..length]).unwrap();
        let text = refusal(opened(out.path()));
        assert!(text.contains("train-000000.tar is cut off; fetch or write the shard anew"), "{length}: {text}");
    }
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    fs::write(&shards[0], &damaged).unwrap();
    assert!(refusal(opened(out.path())).contains("cannot be read as a tar"));
    fs::write(&shards[0], &whole).unwrap();
    let stream = opened(out.path()).unwrap();
    fs::write(&shards[0], &whole[..512]).unwrap();
    let text = refusal(stream.batches(cursor(0, 4)).next().unwrap());
    assert!(text.contains("train-000000.tar: 0") && text.contains("it has changed since the run began"), "{text}");
}

/// A shard of these members.
fn shard(path: &Path, members: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    fs::write(path, tar.into_inner().unwrap()).unwrap();
}

#[test]
fn other_peoples_shards_are_read_and_their_gaps_refused() {
    let out = TempDir::new().unwrap();
    let (train, val) = (out.path().join("train-0.tar"), out.path().join("val-0.tar"));
    let mut picture = Vec::new();
    super::picture(1).write_to(&mut std::io::Cursor::new(&mut picture), ImageFormat::Png).unwrap();
    // Longer than a tar's own field for names; and what is neither picture nor label.
    let long = format!("{}/b", "d".repeat(150));
    let (long_png, long_cls) = (format!("{long}.PNG"), format!("{long}.cls"));
    let good: [(&str, &[u8]); 6] = [
        ("a/x.cls", b" 1\n"),
        ("a/x.json", b"{}"),
        ("a/x.png", &picture),
        (&long_png, &picture),
        (&long_cls, b"0"),
        ("note.txt", b""),
    ];
    shard(&train, &good);
    shard(&val, &good);
    let stream = opened(out.path()).unwrap();
    assert_eq!(stream.class_counts(), [(1, 1), (1, 1)]);
    assert_eq!(stream.train.index.told(0), "train-0.tar: a/x.png");
    assert_eq!(
        labels(&stream.in_order(Split::Test, 0..stream.split_len(Split::Test), 9).next().unwrap().unwrap()),
        [1, 0]
    );
    let refused = |members: &[(&str, &[u8])], words: &[&str]| {
        shard(&val, members);
        let text = refusal(opened(out.path()));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(&[("a.png", &picture), ("b.png", &picture), ("b.cls", b"0")], &["val-0.tar: a.png has no a.cls"]);
    refused(&[("a.png", &picture), ("a.cls", b"0"), ("b.cls", b"0")], &["b.cls has no picture"]);
    refused(&[("a.png", &picture), ("a.jpg", &picture), ("a.cls", b"0")], &["a.png and a.jpg are two pictures"]);
    refused(&[("a.png", &picture), ("a.cls", b"2")], &["a.cls says \"2\"", "2 classes 0 to 1"]);
    refused(&[("a.png", &picture), ("a.cls", b"one")], &["says \"one\""]);
    refused(&[("note.txt", b"")], &["has no shards val-*.tar that hold pictures"]);
    fs::remove_file(&val).unwrap();
    assert!(refusal(opened(out.path())).contains("neither shards val-*.tar nor test-*.tar"));
    fs::remove_file(&train).unwrap();
    assert!(refusal(opened(out.path())).contains("has no shards train-*.tar"));
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let dir = folder();
    let out = TempDir::new().unwrap();
    let refused = |config: DataConfig, word: &str| {
        let text = refusal(pack(&config, out.path(), 1 << 20));
        assert!(text.contains(word), "{text}");
    };
    refused(data("mnist", dir.path()), "mnist is no folder of photos");
    refused(data("shards", dir.path()), "shards is no folder of photos");
    refused(DataConfig { limit_test: Some(1), ..data("folder", dir.path()) }, "data.limit_test cannot act here");
    pack(&data("folder", dir.path()), out.path(), 1 << 20).unwrap();
    refused(data("folder", dir.path()), "choose an empty folder");
}

/// The last picture of the test split goes while the shards are written: some of them stand there already.
#[test]
fn shards_that_were_not_written_to_the_end_are_refused() {
    let dir = folder();
    let out = TempDir::new().unwrap();
    let found = folder::open(dir.path(), &Wanted { set: "folder", known: None, only_test: false }).unwrap();
    let last = found.test.1.len() as i64 - 1;
    let path = dir.path().join(found.test.1.told(last));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all.png", &path).unwrap();
    let text = refusal(pack(&data("folder", dir.path()), out.path(), 1));
    assert!(text.contains("it is gone"), "{text}");
    assert!(fs::read_dir(out.path()).unwrap().count() > 2);
    assert!(refusal(opened(out.path())).contains("was not written to its end"));
}
