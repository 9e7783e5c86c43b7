//! `scripts/get_data.sh` against a server that misbehaves. No public mirror and no package registry is reached.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::program::{files, root, run, text};

/// What a server does with a request.
#[derive(Clone, Copy)]
enum Answer {
    /// Closes the connection after so many bytes of the file.
    Cut(usize),
    Status(u16),
    /// Sends the whole file, whatever was asked for.
    Whole,
    /// Sends another file.
    Wrong,
}

/// A web server of one file, which obeys ranges unless it is told otherwise.
struct Server {
    address: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// First byte asked for and bytes sent, of each request so far.
    seen: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Server {
    fn new(path: &'static str, file: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (answers, seen) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Mutex::new(Vec::new())));
        let (of_thread, seen_there) = (answers.clone(), seen.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let answer: Option<Answer> = of_thread.lock().unwrap().pop_front();
                // A client that leaves early is its own business.
                let _ = serve(connection.unwrap(), path, &file, answer, &seen_there);
            }
        });
        Self { address, answers, seen }
    }

    /// Runs the script with these answers first; the requests that it made.
    fn get(&self, folder: &Path, answers: &[Answer]) -> (Output, Vec<(usize, usize)>) {
        self.answers.lock().unwrap().extend(answers);
        let output = run(get_data(folder, &self.address));
        assert!(self.answers.lock().unwrap().is_empty(), "an answer was not asked for");
        (output, std::mem::take(&mut self.seen.lock().unwrap()))
    }
}

fn serve(
    mut connection: TcpStream,
    path: &str,
    file: &[u8],
    answer: Option<Answer>,
    seen: &Mutex<Vec<(usize, usize)>>,
) -> std::io::Result<()> {
    let head: Vec<String> =
        BufReader::new(&connection).lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let range = head.iter().find_map(|l| l.strip_prefix("Range: bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    let from = range.unwrap_or(0);
    let other = gz(b"not the file");
    let (status, body) = match answer {
        _ if !head[0].starts_with(&format!("GET {path} ")) => (404, &b""[..]),
        Some(Answer::Status(status)) => (status, &b""[..]),
        Some(Answer::Whole) => (200, file),
        Some(Answer::Wrong) => (200, &other[..]),
        _ if range.is_some() => (206, &file[from..]),
        _ => (200, file),
    };
    let place = if status == 206 {
        format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len())
    } else {
        String::new()
    };
    let sent = if let Some(Answer::Cut(bytes)) = answer { &body[..bytes] } else { body };
    // Before the answer: once the client has it, the test may look.
    seen.lock().unwrap().push((from, sent.len()));
    write!(connection, "HTTP/1.1 {status} -\r\nContent-Length: {}\r\n{place}Connection: close\r\n\r\n", body.len())?;
    connection.write_all(sent)
}

const FILE: &str = "t10k-images-idx3-ubyte";

/// MNIST as `scripts/test.sh` has fetched it.
fn mnist() -> PathBuf {
    std::env::var_os("REPRO_DATA").map_or(root().join("data"), PathBuf::from).join("mnist")
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A folder in which all of MNIST but one file is there.
fn lacking() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mnist")).unwrap();
    for file in files(&mnist()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name != FILE && name.ends_with("ubyte") {
            std::os::unix::fs::symlink(fs::canonicalize(&file).unwrap(), dir.path().join("mnist").join(name)).unwrap();
        }
    }
    dir
}

/// The script with a mirror, and with nothing else that it could reach: no npm, and no way to a public server.
fn get_data(folder: &Path, mirror: &str) -> Command {
    let tools = folder.join("tools");
    if !tools.exists() {
        fs::create_dir(&tools).unwrap();
        for tool in [
            "bash",
            "cksum",
            "curl",
            "cut",
            "dirname",
            "echo",
            "flock",
            "grep",
            "gzip",
            "mkdir",
            "mv",
            "rm",
            "sha256sum",
            "sync",
            "xargs",
        ] {
            let paths = std::env::var_os("PATH").unwrap();
            let found = std::env::split_paths(&paths).map(|p| p.join(tool)).find(|p| p.exists());
            std::os::unix::fs::symlink(found.unwrap_or_else(|| panic!("no {tool} in PATH")), tools.join(tool)).unwrap();
        }
    }
    let mut command = Command::new(tools.join("bash"));
    command.arg(root().join("scripts/get_data.sh")).arg("mnist").current_dir(folder).env_clear();
    // Nothing listens on port 1.
    command.envs([
        ("https_proxy", "http://127.0.0.1:1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("no_proxy", "127.0.0.1"),
    ]);
    command.env("PATH", tools).env("HOME", folder).env("REPRO_DATA", folder).env("REPRO_MIRROR", mirror);
    command
}

fn served() -> (Server, usize, tempfile::TempDir) {
    let file = gz(&fs::read(mnist().join(FILE)).unwrap());
    let length = file.len();
    (Server::new("/mnist/t10k-images-idx3-ubyte.gz", file), length, lacking())
}

fn fetched(output: &Output, folder: &Path) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("complete"), "{said}");
    assert_eq!(fs::read(folder.join("mnist").join(FILE)).unwrap(), fs::read(mnist().join(FILE)).unwrap());
    assert!(!folder.join("mnist/.part").exists());
}

fn failed(output: &Output, folder: &Path, named: &str) {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(FILE) && said.contains("run this again") && said.contains(named), "{said}");
    assert!(!folder.join("mnist").join(FILE).exists());
}

#[test]
fn a_cut_connection_is_continued_where_it_broke_and_an_error_in_between_loses_nothing() {
    let (server, length, dir) = served();
    let half = length / 2;
    let (output, seen) = server.get(dir.path(), &[Answer::Cut(half)]);
    failed(&output, dir.path(), "");
    assert_eq!(seen, [(0, half)]);
    for status in [500, 404] {
        let (output, seen) = server.get(dir.path(), &[Answer::Status(status)]);
        failed(&output, dir.path(), &status.to_string());
        assert_eq!(seen, [(half, 0)]);
    }
    let (output, seen) = server.get(dir.path(), &[]);
    fetched(&output, dir.path());
    assert_eq!(seen, [(half, length - half)], "no byte is fetched twice");
    let (output, seen) = server.get(dir.path(), &[]);
    fetched(&output, dir.path());
    assert_eq!(seen, [], "what is here is not fetched");
}

#[test]
fn a_server_that_cannot_continue_is_asked_for_the_whole() {
    for refusal in [Answer::Whole, Answer::Status(416)] {
        let (server, length, dir) = served();
        server.get(dir.path(), &[Answer::Cut(length / 3)]);
        let (output, seen) = server.get(dir.path(), &[refusal]);
        fetched(&output, dir.path());
        assert_eq!(*seen.last().unwrap(), (0, length));
    }
}

#[test]
fn a_file_with_another_hash_is_not_taken() {
    let (server, _, dir) = served();
    let (output, _) = server.get(dir.path(), &[Answer::Wrong]);
    failed(&output, dir.path(), "SHA-256 differs");
    assert!(files(&dir.path().join("mnist/.part")).is_empty(), "it is not kept to be continued");
    let (output, _) = server.get(dir.path(), &[]);
    fetched(&output, dir.path());
}
