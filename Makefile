# make picture   sets up .venv, then trains, imprints, embeds, measures and draws; DATASET=cifar10 for another
# make methods   trains, imprints, embeds and compares the digits by other methods
# make test      sets up .venv and runs the tests; make test-all adds those that take longer
# make tutorial  runs the tutorial's script and writes the notebook; make docs writes docs/index.html
# make benchmark   measures beside the published algorithms, and writes benchmarks/README.md
# make clean     takes away what make picture and make methods made, but for .venv

DATASET = digits
SEEDS = 0 1 2
TASKS_digits = all even odd low high randomlab
TASKS_cifar10 = all animals vehicles randomlab
TASKS_cifar100 = A B
TASKS = $(TASKS_$(DATASET))
# where cifar10 and cifar100 are, or are downloaded to
DATA_DIR = data
# where several are installed, PYTHON=python3.12 chooses
PYTHON = python3
# without a GPU, TORCH=cpu saves some gigabytes of CUDA
TORCH =

VENV = .venv/bin/python
FOLDERS = $(addprefix predictions/$(DATASET)_,$(TASKS))
CHECKPOINTS = $(foreach t,$(TASKS),$(addprefix checkpoints/$(DATASET)_$t/,$(SEEDS)))
PREDICTIONS = $(foreach f,$(FOLDERS),$(SEEDS:%=$f/preds_%.h5))
LABELS = predictions/labels/$(DATASET)_val_labels.npy
# one run has nothing to be compared with, and one task no matrix
COMPARED = $(filter-out 1,$(words $(PREDICTIONS)))
SEVERAL = $(filter-out 1,$(words $(TASKS)))
EMBEDDING = $(addprefix predictions/embedding/$(DATASET)_,inpca.npz progress.csv lengths.csv lengths.json \
	transfer.csv diversity.json $(if $(COMPARED),comparison.csv comparison.json distances.csv))
PLOTS = $(addprefix plots/$(DATASET)/,inpca.html inpca.png inpca_2d.png inpca_pairs.png explained_stress.png \
	progress.png lengths.png transfer.png $(if $(COMPARED),trajectories_compare.png) $(if $(SEVERAL),distances.png))

picture: $(EMBEDDING) $(PLOTS)
	@printf '\nThe picture of %s:\n' $(DATASET)
	@printf '  %s\n' $(FOLDERS) $(EMBEDDING) $(PLOTS)

$(PREDICTIONS) $(LABELS) &: | known-dataset .venv/ready
	$(VENV) supervised_imagenet/01_training/train.py --dataset $(DATASET) --data-dir $(DATA_DIR) --task $(TASKS) --seed $(SEEDS)
	$(VENV) supervised_imagenet/02_imprinting/store_labels.py --dataset $(DATASET) --data-dir $(DATA_DIR)
	$(VENV) supervised_imagenet/02_imprinting/store_predictions.py --dataset $(DATASET) --data-dir $(DATA_DIR) --task $(TASKS) --seed $(SEEDS)

$(EMBEDDING) $(PLOTS) &: $(PREDICTIONS) $(LABELS) $(wildcard $(addprefix info_geometry/,*.py *.html *.mplstyle)) | known-dataset .venv/ready
	$(VENV) info_geometry/inpca.py $(FOLDERS)
	$(VENV) info_geometry/trajectory.py $(FOLDERS)

# files are written whole or not at all: those of a run that is stopped are not to be deleted
.PRECIOUS: $(PREDICTIONS) $(LABELS) $(EMBEDDING) $(PLOTS)

test: .venv/ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	$(VENV) -m pytest -m "not slow"

test-all: .venv/ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	$(VENV) -m pytest

tutorial: .venv/ready
	.venv/bin/jupytext --update --to ipynb picture_of_tasks_tutorial.py
	.venv/bin/jupyter nbconvert --to notebook --inplace --execute --ExecutePreprocessor.record_timing=False \
		--CoalesceStreamsPreprocessor.enabled=True picture_of_tasks_tutorial.ipynb

# the digits by other methods, and the comparison with supervised learning
METHOD = $(VENV) representation_learning
OTHERS = simclr-all barlow-all fixmatch4-all fixmatch25-all protonets-all maml-all fomaml-all
TUNED = finetune-even-5-odd finetune-even-50-odd multitask-even-odd
methods: .venv/ready
	$(VENV) supervised_imagenet/01_training/train.py --task all even odd --seed $(SEEDS)
	$(METHOD)/simclr.py --seed $(SEEDS)
	$(METHOD)/barlow_twins.py --seed $(SEEDS)
	$(METHOD)/fixmatch.py --labelled 4 --seed $(SEEDS)
	$(METHOD)/fixmatch.py --labelled 25 --seed $(SEEDS)
	$(METHOD)/protonets.py --seed $(SEEDS)
	$(METHOD)/maml.py --seed $(SEEDS)
	$(METHOD)/maml.py --first-order --seed $(SEEDS)
	$(METHOD)/multitask.py --task even odd --seed $(SEEDS)
	for seed in $(SEEDS); do for start in 005 050; do $(METHOD)/finetune.py --task odd --seed $$seed \
		--start checkpoints/digits_even/$$seed/checkpoint_$$start.pt || exit; done; done
	$(VENV) supervised_imagenet/02_imprinting/store_labels.py
	$(VENV) supervised_imagenet/02_imprinting/store_predictions.py --predictions predictions/methods --norms renewed \
		--task all $(OTHERS) even odd $(TUNED)
	$(VENV) info_geometry/inpca.py $(addprefix predictions/methods/digits_,all $(OTHERS))
	$(METHOD)/compare.py $(addprefix predictions/methods/digits_,all $(OTHERS) multitask-even-odd)
	$(METHOD)/compare.py --results predictions/methods/finetune --plots predictions/methods/finetune \
		$(addprefix predictions/methods/digits_,odd $(TUNED))

# numba asks uname for the name of the processor
docs: .venv/ready
	PDOC_ALLOW_EXEC=1 .venv/bin/pdoc --docformat google --output-directory docs info_geometry supervised_imagenet \
		representation_learning

benchmark: .venv/ready
	$(VENV) benchmarks/run.py

clean: known-dataset
	rm -rf $(CHECKPOINTS) plots/$(DATASET) predictions/methods $(addprefix checkpoints/digits_,$(OTHERS) $(TUNED))
	rm -rf $(FOLDERS:=/.preds_*) $(FOLDERS:=/.metrics*) predictions/embedding/.$(DATASET)_* predictions/embedding/$(DATASET)_*.unfinished.npz
	rm -f $(PREDICTIONS) $(FOLDERS:=/metrics.json) $(LABELS) $(EMBEDDING)
	-@rmdir $(addprefix checkpoints/$(DATASET)_,$(TASKS)) $(FOLDERS) \
		checkpoints predictions/labels predictions/embedding 2>/dev/null || true

known-dataset:
	@test -n "$(TASKS)" || { echo 'unknown DATASET=$(DATASET); known are digits, cifar10, cifar100' >&2; exit 2; }

.venv/ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) is missing; on Debian and Ubuntu: sudo apt install python3 python3-venv' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(PYTHON) is older than 3.11; name a newer one with PYTHON=python3.12, on Debian and Ubuntu from: sudo apt install python3.12 python3.12-venv' >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo '$(PYTHON) has no venv; on Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(if $(TORCH),.venv/bin/pip install torch torchvision --index-url https://download.pytorch.org/whl/$(TORCH))
	.venv/bin/pip install --editable '.[test]'
	@touch $@

.PHONY: picture methods test test-all tutorial docs benchmark clean known-dataset
