//! Files that people take for weights and that are none: above all PyTorch's pickles, which can run code when they are read.

use std::path::Path;

use crate::{Error, user};

/// What a zip archive starts with.
const ZIP: &[u8] = b"PK\x03\x04";

/// Why a file that starts so is not read, and what to do; `None` if it may be a safetensors file.
pub(super) fn refusal(path: &Path, start: &[u8]) -> Option<Error> {
    if is_pickle(start) {
        return Some(user!(
            "{} is a PyTorch pickle, which is not read here: reading one can run any code. Convert it once, in Python with torch and \
             safetensors:\n{}",
            path.display(),
            conversion(path)
        ));
    }
    if start.starts_with(b"version https://git-lfs") {
        return Some(user!(
            "{} is not the file itself but a pointer of Git LFS; fetch it with `git lfs pull`",
            path.display()
        ));
    }
    None
}

/// `torch.save` writes a zip archive whose first member is `<name>/data.pkl`; before PyTorch 1.6 it wrote pickles one after the other.
fn is_pickle(start: &[u8]) -> bool {
    if start.starts_with(ZIP) {
        // The length of the name stands at 26, the name at 30 (APPNOTE.TXT, 4.3.7).
        let length = start.get(26..28).map_or(0, |n| usize::from(n[0]) | usize::from(n[1]) << 8);
        return start.get(30..30 + length).is_some_and(|name| name.ends_with(b".pkl"));
    }
    // PROTO and its version; a safetensors header of 640 + … bytes starts with the same two bytes, and then has its brace.
    matches!(start, [0x80, 2..=5, ..]) && start.get(8) != Some(&b'{')
}

/// Two lines of Python that write the state dict of the pickle at `path`, bare or nested as trainers nest it, as safetensors beside it.
fn conversion(path: &Path) -> String {
    let quoted = |path: &Path| format!("\"{}\"", path.display().to_string().replace('\\', r"\\").replace('"', "\\\""));
    // A pickle may be called so itself.
    let target = match path.extension() {
        Some(ending) if ending == "safetensors" => path.with_extension("converted.safetensors"),
        _ => path.with_extension("safetensors"),
    };
    format!(
        "  import torch, safetensors.torch; w = torch.load({}, map_location=\"cpu\", weights_only=True)\n  \
         safetensors.torch.save_file({{k: v.clone().contiguous() for k, v in next((w[n] for n in (\"state_dict\", \"model_state_dict\", \
         \"model\") if n in w), w).items() if torch.is_tensor(v)}}, {})",
        quoted(path),
        quoted(&target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Named, read, write};
    use std::fs;
    use tch::{Device, Kind, Tensor};

    /// A local file header of a zip archive, up to its member's name.
    fn zip(name: &[u8]) -> Vec<u8> {
        [ZIP, &[0; 22], &(name.len() as u16).to_le_bytes(), &[0; 2], name, &[0; 40]].concat()
    }

    #[test]
    fn pickles_are_refused_with_what_converts_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet \"18\".pth");
        // torch.save's magic number, as PyTorch before 1.6 began its files.
        let legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
        for bytes in [zip(b"resnet18/data.pkl"), legacy, b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.".to_vec()] {
            fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2);
            assert_eq!(text.lines().count(), 3, "{text}");
            let name = folder.path().join("resnet \\\"18\\\"");
            for part in
                [format!("torch.load(\"{}.pth\"", name.display()), format!("\"{}.safetensors\")", name.display())]
            {
                assert!(text.contains(&part), "{part}\n{text}");
            }
        }
    }

    #[test]
    fn other_files_are_no_pickles() {
        for other in [zip(b"weight.npy"), zip(b""), ZIP.to_vec(), b"\x80\x02".to_vec(), b"\x89HDF\r\n\x1a\n".to_vec()] {
            assert_eq!(is_pickle(&other), other == b"\x80\x02");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("git lfs pull"));
    }

    /// A header of 640 bytes starts as a pickle does.
    #[test]
    fn a_safetensors_file_that_starts_like_a_pickle_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let start = |length: usize| {
            let one = Named::from([("a".repeat(length), Tensor::zeros([1], (Kind::Float, Device::Cpu)))]);
            write(&path, &one, None).unwrap();
            fs::read(&path).unwrap()
        };
        let length = (500..640).find(|&length| start(length).starts_with(&[0x80, 2, 0])).unwrap();
        start(length);
        assert_eq!(read(&path).unwrap().0.len(), 1);
    }
}
