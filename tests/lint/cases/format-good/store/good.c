int store_good(void) {
    return 0;
}
