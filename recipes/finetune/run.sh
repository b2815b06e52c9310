#!/bin/sh
# Fine-tune a recogniser on spoken commands for a home, and say what that brought.
#
#   recipes/finetune/run.sh MODEL OUT [options of `vermilion train aed`]
#
# MODEL: folder of a FireRedASR2-AED. OUT: gets the data, the model (OUT/tuned/model) and results.md.
# TTS_PYTHON: Python with recipes/finetune/requirements.txt (default: python). PYTHON: the one with Vermilion.
# GENERAL: manifest of other speech, to see what the model forgets. A run that was killed goes on.
# Options replace those of the recipe: run.sh MODEL OUT --steps 1000 --learning-rate 1e-5
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 2
fi
model=$1 out=$2
shift 2
here=$(dirname "$0")
python=${PYTHON:-python}

[ -e "$out/home/test-voice.jsonl" ] || "${TTS_PYTHON:-python}" "$here/make_data.py" --out "$out/home"
for default in "--steps 150" "--warmup-steps 20" "--learning-rate 5e-4" "--schedule linear" "--max-frames 4000" \
    "--save-every 50" "--validate-every 50" "--log-every 10"; do
    case " $* " in
    *" ${default% *} "* | *" ${default% *}="*) ;;     # given
    *) set -- "$@" ${default% *} ${default#* } ;;
    esac
done
"$python" -m vermilion train aed "$out/home/train.jsonl" --dev "$out/home/dev.jsonl" --init "$model" \
    --output-dir "$out/tuned" "$@"
"$python" "$here/measure.py" --before "$model" --after "$out/tuned/model" --out "$out/results.md" \
    "new sentences, the voice trained on=$out/home/test.jsonl" "commands worded otherwise=$out/home/test-words.jsonl" \
    "new sentences, another voice=$out/home/test-voice.jsonl" "everyday sentences, the voice trained on=$out/home/everyday.jsonl" \
    ${GENERAL:+"other speech=$GENERAL"}
