/* Loaded before other libraries. A rank stops itself in the call of MPI that STOP_IN names; every argument is passed on as a word. Where
 * SLOW_FSYNC says so, writing a file to the disk takes so many seconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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

int fsync(int file) {
	int (*next)(int);
	const char *seconds = getenv("SLOW_FSYNC");
	*(void **)&next = dlsym(RTLD_NEXT, "fsync");
	if (seconds)
		sleep(atoi(seconds));
	return next(file);
}

#define CALL(name)                                                                        \
	int name(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j) { \
		int (*next)(long, long, long, long, long, long, long, long, long, long);          \
		*(void **)&next = dlsym(RTLD_NEXT, #name);                                        \
		stop_in(#name);                                                                   \
		return next(a, b, c, d, e, f, g, h, i, j);                                        \
	}

CALL(MPI_Init_thread)
CALL(MPI_Ibarrier)
CALL(MPI_Iallgather)
CALL(MPI_Comm_dup)
CALL(MPI_Win_allocate)
CALL(MPI_Win_free)
CALL(MPI_Finalize)
