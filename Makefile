# The two commands of the README, `make demo` and `make test`, and what they are made of. CMake builds the C.
# Each target installs what it lacks from Debian's packages (packaging/install.sh).

.PHONY: build viewer demo test crash overload soak bench clean help packages
.DEFAULT_GOAL := help

help:
	@echo 'make demo    install what is missing, build, start the appliance, send it a chest CT, show the result'
	@echo '             DEMO_CT=<folder> sends that CT, DEMO_ONCE=1 ends after the result'
	@echo 'make test    install what is missing, build and run every test (TESTS="lint release": only these stages)'
	@echo 'make crash   kill every process before and after each of its durable calls, all of them (the tests do a share)'
	@echo 'make overload  100,000 aborted associations, slow and silent peers on both ports: memory flat, others served'
	@echo 'make soak    SOAK_STUDIES (2000) studies through the whole path with random kills, for SOAK_MINUTES (60) at most'
	@echo 'make build   the optimised tool at build/pulmo, the viewer at web/viewer/dist'
	@echo 'make bench   every benchmark beside its peers'
	@echo 'make clean   remove what the others made'

packages:
	@packaging/install.sh build

build: packages viewer
	@packaging/build.sh

# npm ci only when the lock file changed; the bundle only when a source did.
viewer: packages
	@packaging/viewer.sh

demo: build
	@node packaging/demo.mjs

test:
	@packaging/install.sh build test
	@tests/run.sh $(TESTS)

crash: build
	@packaging/install.sh build test
	@ninja -C build reliability_tools
	@PULMO_CRASH=full node tests/reliability/crash-matrix.test.mjs
	@PULMO_KILLS=1000 node tests/reliability/crash-random.test.mjs

overload: build
	@packaging/install.sh build test
	@PULMO_OVERLOAD=full node tests/reliability/overload.test.mjs

soak: build
	@packaging/install.sh build test
	@ninja -C build reliability_tools
	@node tests/reliability/soak.mjs

bench: build
	@packaging/install.sh build test
	@bench/run.sh

clean:
	rm -rf build build-clang build-asan build-tsan build-fuzz build-test demo-data web/viewer/dist web/viewer/node_modules
