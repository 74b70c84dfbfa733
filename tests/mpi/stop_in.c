/* Loaded before other libraries. The rank STOP_RANK stops itself in the call of MPI that STOP_IN names, every argument of which is passed on
 * as a word; or, where that is `open`, when it begins to read the labels. Where SLOW_OPEN or SLOW_FSYNC say so, that, or writing a file to the
 * disk, takes so many seconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void stop_in(const char *call) {
	const char *wanted = getenv("STOP_IN"), *stopped = getenv("STOP_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
	if (rank == NULL)
		rank = getenv("PMI_RANK");
	if (rank == NULL)
		rank = getenv("SLURM_PROCID");
	if (wanted && rank && stopped && strcmp(wanted, call) == 0 && strcmp(rank, stopped) == 0)
		raise(SIGSTOP);
}

static void *next(const char *name, const char *slow) {
	const char *seconds = getenv(slow);
	if (seconds)
		sleep(atoi(seconds));
	return dlsym(RTLD_NEXT, name);
}

int fsync(int file) {
	int (*real)(int);
	*(void **)&real = next("fsync", "SLOW_FSYNC");
	return real(file);
}

int open64(const char *path, int flags, mode_t mode) {
	int (*real)(const char *, int, mode_t), is_slow = strstr(path, "train-labels") != NULL;
	if (is_slow)
		stop_in("open");
	*(void **)&real = next("open64", is_slow ? "SLOW_OPEN" : "");
	return real(path, flags, mode);
}

#define CALL(name)                                                                        \
	int name(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j) { \
		int (*next)(long, long, long, long, long, long, long, long, long, long);          \
		*(void **)&next = dlsym(RTLD_NEXT, #name);                                        \
		stop_in(#name);                                                                   \
		return next(a, b, c, d, e, f, g, h, i, j);                                        \
	}

CALL(MPI_Init_thread)
CALL(MPI_Iallgather)
CALL(MPI_Comm_dup)
CALL(MPI_Win_allocate)
CALL(MPI_Win_free)
CALL(MPI_Finalize)
CALL(MPI_Isend)
