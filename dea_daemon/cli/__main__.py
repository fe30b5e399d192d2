from dea_daemon.cli import main

main()
