#!/usr/bin/env bash
# Train on Cloud TPUs from a queue: launch/tpu_queued.sh CONFIG --workdir DIR [...]
#
# Asks for the TPUs, waits for them, sets them up, trains on all workers of all slices, and deletes them at the end. When Spot
# TPUs are taken away it asks again and training goes on from the checkpoint in DIR, which must be a folder that all workers
# share and that outlives them: a mounted Filestore (NFS), or a bucket by gcsfuse (see MOUNT). Stop this script at any time: the
# same command takes up what is there.
set -euo pipefail

NAME=${NAME:-biomedclip}
PROJECT=${PROJECT:-$(gcloud config get-value project 2>/dev/null)}
ZONE=${ZONE:-us-central1-a}
TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} # the machine's image, which belongs to TYPE
SLICES=${SLICES:-1}
SPOT=${SPOT:-1}       # 1: cheaper, and may be taken away; 0: on demand
RETRIES=${RETRIES:-3} # how many times in a row to start again on TPUs that are still there
SECONDS_BETWEEN_LOOKS=${SECONDS_BETWEEN_LOOKS:-60}
REPOSITORY=${REPOSITORY:-} # git address of this repository, for the workers
# what mounts the shared folder on a worker, such as: sudo mkdir -p /mnt/runs && sudo mount -t nfs 10.0.0.2:/runs /mnt/runs
MOUNT=${MOUNT:-true}
SETUP=${SETUP:-"curl -LsSf https://astral.sh/uv/install.sh | sh
    && (test -d biomedclip_jax || git clone --depth 1 '$REPOSITORY' biomedclip_jax)
    && cd biomedclip_jax && ~/.local/bin/uv venv --allow-existing --python 3.12
    && ~/.local/bin/uv pip install --quiet -e '.[tpu]'"}
BIOMEDCLIP=${BIOMEDCLIP:-.venv/bin/biomedclip}

[ $# -ge 1 ] || { echo "usage: $0 CONFIG --workdir DIR [options of biomedclip train]" >&2; exit 2; }
[ -n "$PROJECT" ] || { echo "$0: PROJECT is not set and gcloud has no default" >&2; exit 2; }
[ -n "$REPOSITORY" ] || [[ $SETUP != *"clone --depth 1 ''"* ]] || { echo "$0: REPOSITORY is not set" >&2; exit 2; }

queued() { # VERB [options]
    local verb=$1
    shift
    echo "+ gcloud compute tpus queued-resources $verb $NAME --project=$PROJECT --zone=$ZONE $*" >&2
    gcloud compute tpus queued-resources "$verb" "$NAME" "--project=$PROJECT" "--zone=$ZONE" "$@"
}

state() { # prints one of Google's states, or NONE
    local answer
    if answer=$(gcloud compute tpus queued-resources describe "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
        "--format=value(state.state)" 2>&1); then
        echo "$answer"
    elif [[ $answer == *NOT_FOUND* || $answer == *"was not found"* ]]; then
        echo NONE
    else
        echo "$0: $answer" >&2
        return 1
    fi
}

create() {
    local options=("--accelerator-type=$TYPE" "--runtime-version=$RUNTIME")
    if [ "$SLICES" = 1 ]; then
        options+=("--node-id=$NAME")
    else
        options+=("--node-count=$SLICES" "--node-prefix=$NAME")
    fi
    [ "$SPOT" != 1 ] || options+=(--spot)
    queued create "${options[@]}"
}

everywhere() { # COMMAND: on every worker of every slice at once
    queued ssh --node=all --worker=all "--command=$1"
}

# an ssh connection that broke leaves the training behind: it is asked to save, and waited for
train="while pkill -TERM -x $(basename "$BIOMEDCLIP"); do sleep 5; done"
train+="; cd biomedclip_jax && $BIOMEDCLIP train$(printf ' %q' "$@")"
ready=
tries=0
while :; do
    now=$(state)
    echo "$(date +%T) $NAME: $now"
    case $now in
        NONE)
            create
            ready=
            tries=0
            ;;
        ACTIVE)
            code=0
            if [ -z "$ready" ]; then
                everywhere "$MOUNT && ${SETUP//$'\n'/ }" || code=$?
                [ "$code" != 0 ] || ready=1
            fi
            if [ "$code" = 0 ]; then
                everywhere "$train" || code=$?
            fi
            echo "$(date +%T) $NAME: exit code $code"
            case $code in
                0 | 2) # finished, or wrong input, which would be wrong again
                    queued delete --force --quiet
                    exit "$code"
                    ;;
            esac
            [ "$(state)" != ACTIVE ] || tries=$((tries + 1))
            if [ "$tries" -gt "$RETRIES" ]; then
                echo "$0: gave up after $RETRIES retries on TPUs that are still there; they cost money until you run:" >&2
                echo "  gcloud compute tpus queued-resources delete $NAME --project=$PROJECT --zone=$ZONE --force" >&2
                exit "$code"
            fi
            ;;
        FAILED | SUSPENDED) queued delete --force --quiet ;;
        *) sleep "$SECONDS_BETWEEN_LOOKS" ;; # ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, CREATING, SUSPENDING, DELETING
    esac
done
