#!/usr/bin/env bash
# The whole mini set, in the order in which it was made. Each step goes on where it stopped when it is given again.
#   recipes/mini/run.sh WORK        needs two cores and about four hours, most of them for speech
# WORK/debs: Debian's packages (sounds.py, texts.py and prompts.py name them); WORK/voices: the voices of npm's kokoro-js.
# The interpreter TTS has recipes/mini/requirements.txt, PYTHON has Vermilion with the extra `training`.
set -euo pipefail
cd "$(dirname "$0")"
work=$1 python=${PYTHON:-python} tts=${TTS:-python}
export OMP_NUM_THREADS=1

"$tts" prompts.py --packages "$work/debs" --out "$work/prompts.jsonl"
for lang in zh en; do "$tts" speak.py --prompts "$work/prompts.jsonl" --voices "$work/voices" --lang $lang --hours 0.7 --out "$work/speech"; done
"$tts" speak.py --prompts "$work/prompts.jsonl" --lang en --engine hibari --hours 6 --out "$work/speech"
for lang in es fr it ru de; do
  "$tts" speak.py --prompts "$work/prompts.jsonl" --lang $lang --engine espeak --out "$work/speech"
  "$tts" speak.py --prompts "$work/prompts.jsonl" --voices "$work/voices" --lang $lang --hours 0.05 --out "$work/speech"
done
for lang in en zh; do "$tts" speak.py --prompts "$work/prompts.jsonl" --lang $lang --engine espeak --hours 0.2 --out "$work/speech"; done
"$python" sounds.py --packages "$work/debs" --out "$work/sounds"
"$tts" texts.py --packages "$work/debs" --out "$work/text"
"$python" sets.py --speech "$work/speech" --sounds "$work/sounds" --hibari-hours 5.5 --out "$work/sets"
cat "$work"/sets/vad-speech-{train,dev}.jsonl > "$work/sets/vad-speech.jsonl"

# recogniser: three encoder layers without regularisation, a flat start over CTC's plateau, more of it with and without
# augmentation, then seven layers
vermilion=("$python" -m vermilion train)
plain=(--plain-steps 20000 --no-mask --augment.speeds 1.0 --augment.volume 0 --augment.noise 0 --augment.codec 0
  --augment.reverb 0 --augment.low-pass 0 --augment.clip 0 --label-smoothing 0.05 --max-frames 2500)
loud=(--dropout 0.1 --masks.time-width 20 --masks.frequency-width 15 --augment.noise 0.2 --augment.noises "$work/sounds/noise.jsonl"
  --augment.snr-db 10 30 --augment.codec 0.1 --augment.reverb 0.1 --label-smoothing 0.1 --max-frames 3000)
asr=("$work/sets/asr-train.jsonl" --dev "$work/sets/asr-dev.jsonl" --threads 1 --workers 1 --save-every 200 --validate-every 400 --log-every 20 --half)
"${vermilion[@]}" aed "${asr[@]}" "${plain[@]}" --output-dir "$work/aed1" --preset mini --width 192 --heads 4 --encoder-layers 3 \
  --decoder-layers 4 --pieces 200 --steps 1695 --warmup-steps 300 --learning-rate 1.5e-3 --ctc-weight 0.5
"$python" flat_start.py "$work/sets/asr-train.jsonl" --init "$work/aed1/model" --out "$work/flat" --steps 500
"${vermilion[@]}" aed "${asr[@]}" "${plain[@]}" --output-dir "$work/aed2" --init "$work/flat" --steps 1304 --warmup-steps 150 \
  --learning-rate 1.5e-3 --ctc-weight 0.6
"${vermilion[@]}" aed "${asr[@]}" "${loud[@]}" --output-dir "$work/aed3" --init "$work/aed2/model" --steps 539 --warmup-steps 100 \
  --learning-rate 1.2e-3 --ctc-weight 0.5
"${vermilion[@]}" aed "${asr[@]}" "${plain[@]}" --output-dir "$work/aed4" --init "$work/aed3/model" --steps 1353 --warmup-steps 60 \
  --learning-rate 1.3e-3 --ctc-weight 0.5
"$python" grow.py "$work/aed4/model" --layers 7 --out "$work/grown"
"${vermilion[@]}" aed "${asr[@]}" "${plain[@]}" --output-dir "$work/aed5" --init "$work/grown" --steps 1150 --warmup-steps 30 \
  --learning-rate 1.0e-3 --schedule cosine --ctc-weight 0.5
"${vermilion[@]}" ctc "$work/aed5/model" "${asr[@]:0:3}" --output-dir "$work/ctc" --fresh --augment.speeds 1.0 --augment.volume 0 \
  --augment.noise 0 --augment.codec 0 --augment.reverb 0 --augment.low-pass 0 --augment.clip 0 --steps 350 --warmup-steps 20 \
  --learning-rate 6e-3 --schedule cosine --max-frames 4000 --threads 1 --workers 1 --save-every 100 --validate-every 175 --log-every 20

# language: the first four layers of that encoder, a new decoder
"${vermilion[@]}" lid "$work/sets/lid-train.jsonl" --dev "$work/sets/lid-dev.jsonl" --encoder "$work/aed5/model" --encoder-layers 4 \
  --decoder-layers 2 --output-dir "$work/lid" --steps 320 --warmup-steps 40 --learning-rate 1.5e-3 --schedule cosine --max-frames 3500 \
  --no-mask --augment.codec 0.1 --augment.noise 0.2 --augment.reverb 0.1 --threads 1 --workers 1 --save-every 200 --validate-every 200 --log-every 20 --half

# detectors: mixes on a timeline; singing is made out of speech, none of it is real
for kind in vad stream events; do
  "${vermilion[@]}" vad --kind $kind --speech "$work/sets/vad-speech.jsonl" --music "$work/sounds/music.jsonl" \
    --noise "$work/sounds/noise.jsonl" --output-dir "$work/det-$kind" --steps 260 --batch 8 --learning-rate 2e-3 --warmup-steps 50 \
    --schedule cosine --ema-decay 0.99 --threads 1 --workers 0 --save-every 100 --validate-every 130 --log-every 10
done

# punctuation
"${vermilion[@]}" punc "$work/text/train.txt" --dev "$work/text/dev.txt" --output-dir "$work/punc" --hidden 192 --layers 3 --heads 4 \
  --feed-forward 768 --steps 200 --batch-words 2000 --learning-rate 1e-3 --warmup-steps 20 --schedule cosine --ema-decay 0.97 --threads 1 \
  --half --no-bert-weights --save-every 50 --validate-every 50 --log-every 10

./gather.sh "$work"
