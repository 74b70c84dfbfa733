#!/bin/sh
# bench.sh MNIST PUSH-PULL: prints what a push and pull take, then the records a second of one process alone and of worlds under mpirun, in
# turns, and their ratio to one process with as many threads as each of theirs.
set -eu
mnist=$1
push_pull=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun="mpirun.openmpi --oversubscribe --bind-to none"

for workers in 1 2; do
	"$push_pull" threads $workers
	for transport in shared messages leaders rma; do
		$mpirun -n $((workers + 1)) "$push_pull" $transport
	done
done

speed() { # name, launcher and options
	name=$1
	shift
	"$@" --data synthetic --model "$work/model" --no-resume --epochs 3 --report "$work/report" >/dev/null
	awk -v name="$name" '/"images_per_second"/ { sub(/,/, "", $2); print name, $2 }' "$work/report" >>"$work/speeds"
}
for round in 1 2 3 4 5; do
	speed alone "$mnist" train --threads 1
	speed alone-2-threads "$mnist" train --threads 2
	speed threads-2 "$mnist" train -n 2 --threads 1
	speed threads-2-server-trains "$mnist" train -n 2 --threads 1 --server-trains
	for transport in shared messages rma; do
		speed "$transport-2" $mpirun -n 2 "$mnist" train --transport $transport
		speed "$transport-2-server-trains" $mpirun -n 2 "$mnist" train --transport $transport --server-trains
	done
done
sort -k1,1 -k2,2n "$work/speeds" | awk '{ name = $1; n[name]++; value[name, n[name]] = $2 }
	END { for (name in n) middle[name] = value[name, int((n[name] + 1) / 2)]
	for (name in n) printf "%-26s %9.0f images/s  %5.2f of one process\n", name, middle[name], middle[name] / middle["alone"] }' | sort
