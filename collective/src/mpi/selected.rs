//! What MPI is told before it begins, and what it has selected to carry its messages.

#![allow(unsafe_code)] // Calls of C functions.

use super::call::check;
use crate::{Error, Fabric};
use mpi::ffi;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

/// Where UCX writes its log and how much of it.
const UCX_LOG_FILE: &str = "UCX_LOG_FILE";
const UCX_LOG_LEVEL: &str = "UCX_LOG_LEVEL";
/// What the name of a file that is open in this process begins with.
const IN_MEMORY: &str = "/proc/self/fd/";
/// Which of its layers Open MPI may send by, and whether its calls leave the core to others while they wait.
const OPEN_MPI_LAYERS: &str = "OMPI_MCA_pml";
const OPEN_MPI_YIELDS: &str = "OMPI_MCA_mpi_yield_when_idle";
/// How many ranks Open MPI's launcher has started, in all and on this node.
const OPEN_MPI_RANKS: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"];

/// Sets what MPI and UCX read from the environment, unless it says something else already.
///
/// - UCX is to write down what it selects, to a log in memory.
/// - Open MPI is not to look for networks that match messages by themselves where all ranks are on one node: that takes as long as all the
///   rest of its beginning, and opens libraries of which none is used then.
/// - Where ranks share a core, those that wait in Open MPI's calls are to leave it to those that they wait for. It does so by itself only
///   where it has been given fewer slots than ranks.
///
/// Where UCX has read its variables already, as a library of this program, or other threads may be reading some, the program begins anew, as
/// the same process.
///
/// # Errors
/// If it cannot.
pub fn prepare(library: &str) -> Result<(), Error> {
    let is_set = |name: &&str| std::env::var_os(name).is_some();
    let mut settings = Vec::new();
    if ![UCX_LOG_FILE, UCX_LOG_LEVEL].iter().any(is_set) {
        // It is inherited over the new beginning.
        let log = memfd_create("ucx-log", MemfdFlags::empty()).map_err(|errno| cannot_begin(errno.into()))?;
        settings.push((UCX_LOG_FILE, format!("{IN_MEMORY}{}", log.into_raw_fd())));
        settings.push((UCX_LOG_LEVEL, "info".to_owned()));
    }
    if library.starts_with("Open MPI") {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
        let [all, here] = OPEN_MPI_RANKS.map(number);
        if here.is_some() && here == all && !is_set(&OPEN_MPI_LAYERS) {
            settings.push((OPEN_MPI_LAYERS, "^cm".to_owned()));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if here.is_some_and(|here| here > cores) && !is_set(&OPEN_MPI_YIELDS) {
            settings.push((OPEN_MPI_YIELDS, "1".to_owned()));
        }
    }
    if settings.is_empty() {
        return Ok(());
    }
    if maps().contains("/libucs.so") || !is_only_thread() {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let mut again = Command::new(std::env::current_exe().map_err(cannot_begin)?);
        return Err(cannot_begin(again.arg0(name).args(arguments).envs(settings).exec()));
    }
    // SAFETY: no other thread is there to read the environment meanwhile.
    settings.iter().for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
    Ok(())
}

fn cannot_begin(cause: io::Error) -> Error {
    let reason =
        format!("the program cannot begin anew to have UCX's log: {cause}; UCX_LOG_LEVEL=warn avoids it");
    Error::Failed { reason }
}

fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// The files that this process has mapped, and more: proc_pid_maps(5).
fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// The log of this process, if it is ours.
fn ucx_log() -> Option<String> {
    unsafe extern "C" {
        /// Of the C library.
        fn fflush(stream: *mut c_void) -> c_int;
    }
    let file = std::env::var(UCX_LOG_FILE).ok().filter(|file| file.starts_with(IN_MEMORY))?;
    // SAFETY: null stands for all streams, UCX's among them, which buffers what it writes.
    unsafe { fflush(ptr::null_mut()) };
    std::fs::read_to_string(file).ok()
}

/// What carries this process's messages, after the first of them, when the ranks are on `nodes` nodes.
pub fn fabric(library: &str, nodes: usize) -> Result<Fabric, Error> {
    let ucx = Fabric::ucx_transports(&ucx_log().unwrap_or_default());
    let devices = Fabric::open_devices(Path::new("/proc/self"), Path::new("/sys"));
    if library.starts_with("Open MPI") {
        let mut names = Fabric::mapped_components(&maps(), library);
        if names.is_empty() {
            names = variables()?;
        }
        return Ok(Fabric::of_open_mpi(names.iter().map(String::as_str), &ucx, devices, nodes));
    }
    let device = device();
    let over = match device.as_deref() {
        Some("ucx") => ucx,
        Some("ofi") => provider().into_iter().collect(),
        _ => Vec::new(),
    };
    Ok(Fabric { layers: device.into_iter().chain(over).collect(), devices })
}

/// Whether rank 0 has to be the last to end MPI, because UCX carries MPICH's messages over TCP.
///
/// There a rank closes each connection by a question, which the other side answers only while it calls MPI. In `MPI_Finalize` of MPICH before
/// 4.2, a rank whose questions are all answered waits for the others in a call that answers none, for ever if one of them has not asked
/// yet. Where all connections are over TCP, all ranks ask rank 0: while it calls nothing of MPI, no other gets past its questions. Its own go out
/// before it answers the first.
pub fn rank_0_has_to_end_last(library: &str) -> bool {
    let transports = ucx_log().map(|log| Fabric::ucx_transports(&log)).unwrap_or_default();
    let is_over_tcp = match transports.is_empty() {
        // There is no log of ours, or none that is understood.
        true => maps().contains("/libucp.so"),
        false => transports.iter().any(|name| name.starts_with("tcp")),
    };
    library.starts_with("MPICH") && is_over_tcp
}

/// The provider of libfabric that the environment names.
fn provider() -> Option<String> {
    let name = ["MPIR_CVAR_OFI_USE_PROVIDER", "FI_PROVIDER"].into_iter().find_map(std::env::var_os)?;
    Some(name.to_string_lossy().into_owned())
}

/// The names of the tool interface's variables that are valid. It opens all components that there are, which takes long.
fn variables() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    // SAFETY: plain out parameters; a name is cut to the length given with its buffer, and nulls stand for what is not wanted.
    unsafe {
        let (mut provided, mut count) = (0, 0);
        check("MPI_T_init_thread", ffi::MPI_T_init_thread(ffi::RSMPI_THREAD_FUNNELED, &mut provided))?;
        check("MPI_T_cvar_get_num", ffi::MPI_T_cvar_get_num(&mut count))?;
        for index in 0..count {
            let (mut name, mut length) = ([0; 256], 256);
            let (mut verbosity, mut bind, mut scope) = (0, 0, 0);
            let code = ffi::MPI_T_cvar_get_info(
                index,
                name.as_mut_ptr(),
                &mut length,
                &mut verbosity,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                &mut bind,
                &mut scope,
            );
            // Variables of components that were closed are invalid.
            if code == ffi::MPI_SUCCESS as i32 {
                names.push(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned());
            }
        }
        check("MPI_T_finalize", ffi::MPI_T_finalize())?;
    }
    Ok(names)
}

/// The device that MPICH was built for, `ucx` or `ofi`, which its version names: `MPICH Device: ch4:ucx`.
fn device() -> Option<String> {
    let text = super::call::library_text();
    let line = text.lines().find_map(|line| line.strip_prefix("MPICH Device:"))?;
    Some(line.trim().rsplit(':').next()?.to_owned())
}
