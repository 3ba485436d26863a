@echo off
rem Uploads files to Azure Blob Storage with Microsoft's own tools: no more than what is listed in the file called as
rem this script with ".files" behind, which has to lie beside it, and each to the name that stands there.
rem
rem     upload.bat           upload what has not arrived yet
rem
rem It needs Windows 10 or newer (cmd.exe), and az (Azure CLI 2.40 or newer) or azcopy (10.13 or newer), as it says when
rem they are missing. The token comes from the environment (AZURE_STORAGE_SAS_TOKEN) or is asked for by powershell; it
rem is in no file. azcopy has no other way to take a token than its command line, where others on this machine can see
rem it while it runs; az has.
rem
rem Stop it with Ctrl-C (and Y), or by making a file called as this script with ".stop" behind: what is being sent is
rem finished, what arrived is recorded, and the journal is given back; after Ctrl-C that goes on in the background for
rem that long. After a kill, a power cut or a closed window just run it again: it goes on with what is missing.
rem
rem Beside the script it keeps, with these behind its name: .results (what arrived; .results.1, .results.2 and so on
rem while it runs), .failed (what did not, and why), .lock (its lock of the journal, if it takes that itself), .work (a
rem directory with the links to the files that are being sent, and what the tools said, in 1\log.txt and so on). Links
rem can only be made in the volume that the files are in: with files elsewhere set CHORUS_STAGING to a directory there,
rem or each file is sent by itself, which is much slower with az. So are write-protected files, and those whose names
rem are too long for that directory. On Windows azcopy trusts what Windows trusts, whatever certificates are named here.
rem
rem Set before it is run, if need be:
rem     CHORUS_ROOT_0, CHORUS_ROOT_1 ...   where the files lie on this machine (it shows the number of each directory)
rem     CHORUS_WORKERS                     how many files or batches are sent at once, at most 64
rem     CHORUS_STAGING                     the directory in which its .work directory is made
rem     CHORUS_UPLOAD                      the program chorus-upload, if it is not where it was
rem     CHORUS_JOURNAL_SAS_TOKEN           the token for the journal, if it has one of its own
rem     CHORUS_RETRY_WAIT                  seconds before a failed run of a tool is repeated, then 3 times that
rem
rem Exit codes: 0 everything is there; 2 a program, a directory, the token or a part of the list is missing, or the token
rem has expired or does not permit this; 3 some
rem files are not there; 10 somebody else has the journal; 130 it was stopped; 1 anything else; or that of chorus-upload
rem if it refuses the journal or the results.

setlocal EnableExtensions DisableDelayedExpansion
chcp 65001 >nul
rem What this starts has the settings from it, with the changes that the environment asked for.
if "%~1"=="/worker" goto worker
if "%~1"=="/keeper" goto keeper
rem @settings@ (written here)
set "c_system=%SystemRoot%\System32"
if not "%~1"=="" (
    >&2 echo error: there are no options; what can be set stands at the beginning of this script
    exit /b 2
)

rem --- The front: looks whether everything is there, then waits. When it ends, the others see that, and end too. ----

rem Paths are put in by percent signs, once, and in quotes: they can hold anything but quotes.
set "c_base=%~f0"
set "c_work=%~f0.work"
if defined CHORUS_STAGING for %%s in ("%CHORUS_STAGING%") do set "c_work=%%~fs\%~nx0.work"
set "AZURE_CLI_DISABLE_CONNECTION_VERIFICATION="
set "ADAL_PYTHON_SSL_NO_VERIFY="
set "AZURE_STORAGE_CONNECTION_STRING="
set "AZURE_STORAGE_KEY="
set "AZURE_STORAGE_ACCOUNT="
set "AZURE_STORAGE_AUTH_MODE="
set "AZURE_CORE_COLLECT_TELEMETRY=0"
if defined c_ca set "REQUESTS_CA_BUNDLE=%c_ca%"
if defined c_ca set "SSL_CERT_FILE=%c_ca%"
if defined CHORUS_WORKERS set "c_workers=%CHORUS_WORKERS%"
call :number c_workers 1 64 || exit /b 2
if not defined CHORUS_RETRY_WAIT set "CHORUS_RETRY_WAIT=10"
call :number CHORUS_RETRY_WAIT 0 3600 || exit /b 2
call :check_roots || exit /b 2
call :check_list || exit /b 2
set "c_az_settings=%AZURE_CONFIG_DIR%"
rem az would take an account, or a key, out of its own settings, and with it another address than the one given here.
if "%c_login%"=="no" set "AZURE_CONFIG_DIR=%c_work%\az"
if "%c_login%"=="yes" call :check_az_settings || exit /b 2
if "%c_tool%"=="azcopy" call :check_work || exit /b 2
if not exist "%c_work%\done" mkdir "%c_work%\done"
if not exist "%c_work%\done" (
    >&2 echo error: the directory for the links cannot be made: "%c_work%"
    exit /b 2
)
pushd "%c_work%"
2>nul (>>front.txt type nul) && 2>nul (>>keeper.txt type nul) || (
    >&2 echo error: this script is running already, or has not ended yet after a stop
    exit /b 1
)
call :check_tools || exit /b 2
call :check_token || exit /b 2
call :check_results || exit /b 1
if exist "%c_base%.stop" del "%c_base%.stop"
if exist code.txt del code.txt
call :what_was_refused
rem The others run from a copy under a plain name: a script's own name could not be passed to another cmd unharmed.
copy /y "%c_base%" run.bat >nul
if errorlevel 1 exit /b 1
rem `start /b` shields them from Ctrl-C. They start first, for what is opened later they do not hold open.
start "" /b "%ComSpec%" /d /c .\run.bat /keeper >keeper.txt
>front.txt call :watch
set "c_code=1"
if exist code.txt for /f %%c in (code.txt) do set "c_code=%%c"
if not exist code.txt >&2 echo error: the script was killed; run it again to go on
popd
exit /b %c_code%

:watch
call :pause 1
2>nul (>>keeper.txt type nul) || goto watch
exit /b 0

rem What a run that came to nothing has tried comes last in the next: what is refused keeps nothing else for ever.
:what_was_refused
if not exist halt.txt for %%d in (later tried) do if exist %%d\ rmdir /s /q %%d
for %%d in (later tried through) do if not exist %%d\ mkdir %%d
move /y through\* tried >nul 2>nul
for %%f in (halt.txt arrived.txt) do if exist %%f del %%f
exit /b 0

:check_az_settings
set "c_settings=%USERPROFILE%\.azure\config"
if defined AZURE_CONFIG_DIR set "c_settings=%AZURE_CONFIG_DIR%\config"
if not exist "%c_settings%" exit /b 0
set "c_section="
set "c_elsewhere="
for /f "usebackq tokens=1 delims==:	 " %%a in ("%c_settings%") do (
    set "c_word=%%a"
    call :az_setting
    if errorlevel 3 (
        if defined c_section set "c_elsewhere=yes"
    ) else if errorlevel 2 (
        set "c_section=yes"
    ) else if errorlevel 1 (
        set "c_section="
    )
)
if not defined c_elsewhere exit /b 0
>&2 echo error: in "%c_settings%" the section [storage] names an account or a key, which az would use instead
exit /b 1

:az_setting
setlocal EnableDelayedExpansion
if "!c_word!"=="[storage]" exit /b 2
if "!c_word:~0,1!"=="[" exit /b 1
for %%k in (connection_string key account) do if /i "!c_word!"=="%%k" exit /b 3
exit /b 0

rem azcopy takes some characters of a path for a pattern or for an escape.
:check_work
setlocal EnableDelayedExpansion
if "!c_work:%%=!"=="!c_work!" if "!c_work:[=!"=="!c_work!" if "!c_work:]=!"=="!c_work!" if "!c_work:#=!"=="!c_work!" exit /b 0
>&2 echo error: azcopy cannot use this directory, for there is one of %% # [ ] in its path: set CHORUS_STAGING. It is
>&2 echo "!c_work!"
exit /b 1

rem %1 a variable that has to be a number, from %2 to %3.
:number
setlocal EnableDelayedExpansion
set "c_number="
set /a c_number=%1 2>nul
if defined %1 if "!c_number!"=="!%1!" if !c_number! geq %2 if !c_number! leq %3 exit /b 0
>&2 echo error: %1 has to be a number from %2 to %3
exit /b 1

:check_roots
set /a c_last=c_roots-1
for /l %%r in (0,1,%c_last%) do if defined CHORUS_ROOT_%%r call set "c_root_%%r=%%CHORUS_ROOT_%%r%%"
for /l %%r in (0,1,%c_last%) do call :check_root %%r || exit /b 1
exit /b 0

:check_root
setlocal EnableDelayedExpansion
set "c_path=!c_root_%1!"
if "!c_path:~-1!"=="\" set "c_path=!c_path:~0,-1!"
>&2 echo !c_modality_%1!: !c_path! ^(CHORUS_ROOT_%1^)
if not exist "!c_path!\" (
    >&2 echo error: there is no such directory; set CHORUS_ROOT_%1 to where these files are
    exit /b 1
)
set "c_long=\\?\!c_path!"
if "!c_path:~0,2!"=="\\" set "c_long=\\?\UNC\!c_path:~2!"
if "!c_path:~0,4!"=="\\?\" set "c_long=!c_path!"
set "c_length=0"
call :measure c_path
rem Out of the reach of this setlocal, in one line, which is read before it ends.
setlocal DisableDelayedExpansion
endlocal & endlocal & set "c_root_%1=%c_path%" & set "c_long_%1=%c_long%" & set "c_length_%1=%c_length%"
exit /b 0

rem Adds the length of the variable %1, up to 1000, to c_length.
:measure
set "c_text=!%1!#"
for /l %%n in (1,1,1000) do if not "!c_text!"=="#" (
    set /a c_length+=1
    set "c_text=!c_text:~1!"
)
exit /b 0

:check_list
if not exist "%c_base%.files" (
    >&2 echo error: the list of the files has to lie beside this script: "%c_base%.files"
    exit /b 1
)
set "c_seen=0"
set "c_ended="
for /f "usebackq tokens=1-3 delims=|" %%a in ("%c_base%.files") do (
    if "%%a"=="@F" set /a c_seen+=1
    if "%%a"=="@E" if "%%b"=="%c_files%" if "%%c"=="%c_list%" set "c_ended=yes"
)
if "%c_seen%"=="%c_files%" if defined c_ended exit /b 0
>&2 echo error: the list is not complete, or not this script's: %c_seen% of %c_files% files are in it
exit /b 1

:check_tools
set "c_need_az="
if "%c_tool%"=="az" set "c_need_az=yes"
if "%c_standalone%"=="yes" set "c_need_az=yes"
set "c_major="
if defined c_need_az (
    call az version --output tsv >az.txt 2>az.log || goto no_az
    for /f "tokens=1,2 delims=." %%a in (az.txt) do if not defined c_major set "c_major=%%a" & set "c_minor=%%b"
)
if defined c_need_az call :new_enough "az (Azure CLI)" 2 40 || exit /b 1
set "c_major="
if "%c_tool%"=="azcopy" (
    azcopy --version >azcopy.txt 2>azcopy.log <nul || goto no_azcopy
    for /f "tokens=3,4 delims=. " %%a in (azcopy.txt) do if not defined c_major set "c_major=%%a" & set "c_minor=%%b"
)
if "%c_tool%"=="azcopy" call :new_enough azcopy 10 13 || exit /b 1
if "%c_standalone%"=="yes" exit /b 0
if defined CHORUS_UPLOAD goto given
rem `call` expands a line twice: what a variable holds comes in the second time only, and is not expanded again.
set c_chorus="%%c_chorus_1%%"
for %%n in (2 3 4 5 6 7 8 9) do if defined c_chorus_%%n call :one_more %%n
goto try_chorus
:given
set c_chorus="%%CHORUS_UPLOAD%%"
:try_chorus
call %c_chorus% --version >chorus.txt 2>chorus.log <nul && exit /b 0
>&2 echo error: chorus-upload does not run here: set CHORUS_UPLOAD, or write the script with --standalone
exit /b 1

:one_more
set c_chorus=%c_chorus% "%%c_chorus_%1%%"
exit /b 0

:no_az
>&2 echo error: az (Azure CLI) is not installed, not on PATH, or does not run
exit /b 1
:no_azcopy
>&2 echo error: azcopy is not installed, not on PATH, or does not run
exit /b 1

rem Whether the version found is at least %2.%3 of the program %1.
:new_enough
if defined c_major call :number c_major 0 9999 2>nul && call :number c_minor 0 9999 2>nul && goto compare
>&2 echo error: the version of %~1 cannot be understood
exit /b 1
:compare
if %c_major% gtr %2 exit /b 0
if %c_major% equ %2 if %c_minor% geq %3 exit /b 0
>&2 echo error: %~1 %2.%3 or newer is needed; this is %c_major%.%c_minor%
exit /b 1

:check_token
if "%c_login%"=="yes" goto use_login
if not defined AZURE_STORAGE_SAS_TOKEN call :ask_token
if not defined AZURE_STORAGE_SAS_TOKEN goto no_token
call :token AZURE_STORAGE_SAS_TOKEN || exit /b 1
if defined CHORUS_JOURNAL_SAS_TOKEN call :token CHORUS_JOURNAL_SAS_TOKEN || exit /b 1
call :time_now
rem azcopy looks first at what is there. The lock of the journal is made, read and deleted.
set "c_needs=cw"
if "%c_tool%"=="azcopy" set "c_needs=rcw"
call :permits AZURE_STORAGE_SAS_TOKEN || exit /b 1
if not "%c_standalone%"=="yes" exit /b 0
set "c_needs=rwd"
set "c_name=AZURE_STORAGE_SAS_TOKEN"
if defined CHORUS_JOURNAL_SAS_TOKEN set "c_name=CHORUS_JOURNAL_SAS_TOKEN"
call :permits %c_name%
exit /b %errorlevel%
:use_login
set "AZURE_STORAGE_SAS_TOKEN="
set "CHORUS_JOURNAL_SAS_TOKEN="
if "%c_tool%"=="azcopy" if not defined AZCOPY_AUTO_LOGIN_TYPE set "AZCOPY_AUTO_LOGIN_TYPE=AZCLI"
exit /b 0
:no_token
>&2 echo error: AZURE_STORAGE_SAS_TOKEN is not set, and powershell could not ask for it
exit /b 1

rem Leaves in c_utc the time in UTC, as YYYYMMDDHHMMSS: what powershell says or, where that says nothing, when this script
rem was written.
:time_now
set "c_ask=[DateTime]::UtcNow.ToString('yyyyMMddHHmmss')"
set "c_shell=%c_system%\WindowsPowerShell\v1.0\powershell.exe"
set "c_later="
for /f "usebackq delims=" %%t in (`%c_shell% -NoProfile -Command "%c_ask%"`) do set "c_later=%%t"
if defined c_later if "%c_later%" gtr "%c_utc%" set "c_utc=%c_later%"
exit /b 0

rem Whether the token in the variable %1 is valid now, and permits what the letters in c_needs stand for; of c and w one
rem will do. What it does not say, a policy of the container says. Leaves in c_expires when it ends.
:permits
setlocal EnableDelayedExpansion
set "c_token=!%1!"
set "c_end="
set "c_permits="
for %%p in ("!c_token:&=" "!") do (
    set "c_pair=%%~p"
    if "!c_pair:~0,3!"=="se=" set "c_end=!c_pair:~3!"
    if "!c_pair:~0,3!"=="sp=" set "c_permits=!c_pair:~3!"
)
set "c_moment="
if defined c_end set "c_end=!c_end:%%3A=:!"
if defined c_end for /f "tokens=1-6 delims=-T:Zz." %%a in ("!c_end!") do set "c_moment=%%a%%b%%c%%d%%e%%f000000"
if defined c_moment set "c_moment=!c_moment:~0,14!"
if defined c_end set "c_end=!c_end:%%2B=+!"
set "c_zone="
if defined c_moment set "c_zone=!c_end:~10!"
if defined c_zone if not "!c_zone:+=!!c_zone:-=!"=="!c_zone!!c_zone!" call :moment_in_utc
set "c_words=!c_moment:~0,4!-!c_moment:~4,2!-!c_moment:~6,2! !c_moment:~8,2!:!c_moment:~10,2! UTC"
if defined c_moment if "!c_moment!" leq "%c_utc%" (
    >&2 echo error: %1: the SAS token has expired, since !c_words!; ask for a new one
    exit /b 1
)
set "c_lacks="
if not "!c_needs:r=!"=="!c_needs!" if "!c_permits:r=!"=="!c_permits!" set "c_lacks=read (r)"
if not "!c_needs:d=!"=="!c_needs!" if "!c_permits:d=!"=="!c_permits!" set "c_lacks=delete (d)"
if "!c_permits:w=!"=="!c_permits!" (
    if "!c_needs:c=!"=="!c_needs!" set "c_lacks=write (w)"
    if not "!c_needs:c=!"=="!c_needs!" if "!c_permits:c=!"=="!c_permits!" set "c_lacks=create or write (c, w)"
)
if defined c_permits if defined c_lacks (
    >&2 echo error: %1: the SAS token does not permit to !c_lacks!; it has sp=!c_permits!. Ask for one that does
    exit /b 1
)
endlocal & set "c_expires=%c_moment%"
exit /b 0

rem Puts the moment c_end, which is not in UTC, into c_moment; where powershell says nothing, it stays as it is.
:moment_in_utc
set "c_ask=[DateTimeOffset]::Parse($env:c_end).UtcDateTime.ToString('yyyyMMddHHmmss')"
for /f "usebackq delims=" %%t in (`%c_shell% -NoProfile -Command "%c_ask%" 2^>nul`) do set "c_moment=%%t"
exit /b 0

rem Takes the question mark off the token in the variable %1. A quote, and what only means something in front of one,
rem can be seen only with delayed expansion, and an exclamation mark only without.
:token
setlocal EnableDelayedExpansion
set "c_token=!%1!"
set "c_rest="
for /f "eol=A delims=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789?%%&=_.~:/+-" %%x in ("a!c_token!") do set "c_rest=%%x"
if defined c_rest goto not_a_token
if "!c_token:~0,1!"=="?" set "c_token=!c_token:~1!"
if not defined c_token goto not_a_token
setlocal DisableDelayedExpansion
for /f "eol=A delims=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%%&=_.~:/+-" %%x in ("a%c_token%") do set "c_rest=%%x"
if defined c_rest goto not_a_token
if "%c_token:sig=%"=="%c_token%" goto no_signature
endlocal & endlocal & set "%1=%c_token%"
exit /b 0
:not_a_token
>&2 echo error: %1 is not a SAS token: it has other characters in it
exit /b 1
:no_signature
>&2 echo error: %1 is not a SAS token: there is no sig= in it
exit /b 1

:ask_token
set "c_ask=[Runtime.InteropServices.Marshal]::SecureStringToBSTR((Read-Host 'SAS token' -AsSecureString))"
set "c_ask=[Runtime.InteropServices.Marshal]::PtrToStringBSTR(%c_ask%)"
set "c_shell=%c_system%\WindowsPowerShell\v1.0\powershell.exe"
for /f "usebackq delims=" %%t in (`%c_shell% -NoProfile -Command "%c_ask%"`) do set "AZURE_STORAGE_SAS_TOKEN=%%t"
exit /b 0

:check_results
rem With a byte order mark, which the list has, `for /f` reads what is written here as UTF-8.
set /p c_bom=<"%c_base%.files"
set "c_bom=%c_bom:~0,1%"
set "c_mark=%c_bom%@C"
>mark.txt call :echo_plain c_mark
set "c_line=%c_bom%%c_title%"
>title.txt call :echo_plain c_line
set "c_size="
for %%f in ("%c_base%.results") do set "c_size=%%~zf"
if not defined c_size set "c_size=0"
if "%c_size%"=="0" call :new_results || exit /b 1
set "c_line="
for /f "usebackq delims=" %%l in ("%c_base%.results") do if not defined c_line set "c_line=%%l"
if "%c_line%"=="%c_title%" exit /b 0
if "%c_line%"=="%c_bom%%c_title%" exit /b 0
>&2 echo error: "%c_base%.results" is not of this destination: move it away
exit /b 1

:new_results
type title.txt >"%c_base%.gathered"
call :put_results
exit /b %errorlevel%

rem Puts the new results in the place of the old ones if they are whole: when a disk is full nothing says so.
:put_results
>>"%c_base%.gathered" echo # end
set "c_line="
for /f "usebackq delims=" %%l in ("%c_base%.gathered") do set "c_line=%%l"
if not "%c_line%"=="# end" goto not_put
move /y "%c_base%.gathered" "%c_base%.results" >nul
if not errorlevel 1 exit /b 0
:not_put
>&2 echo error: what arrived cannot be recorded in "%c_base%.results"
exit /b 1

rem --- The keeper: takes the lock, starts the workers, records what arrived, gives the lock back. -------------------

:keeper
set "c_code=1"
call :await_front
call :await_old_workers || goto keeper_ends
if exist done\ rmdir /s /q done
mkdir done
call :learn
call :gather || goto keeper_ends
if defined c_any call :learn
>&2 echo %c_files% files, %c_there% of them have arrived already
rem A lock that an earlier run could not give back is given back now.
if "%c_standalone%%c_there%"=="yes%c_files%" if not exist "%c_base%.lock" goto report
call :take_lock
set "c_code=%errorlevel%"
if not "%c_code%"=="0" goto keeper_ends
if not "%c_there%"=="%c_files%" call :work
call :gather
if defined c_any call :learn
:report
call :conclude
:keeper_ends
>code.txt echo %c_code%
exit /b %c_code%

:await_front
for /l %%n in (1,1,10) do 2>nul (>>front.txt type nul) && call :pause 1
exit /b 0

rem Workers of a run that was killed send their last batch to its end.
:await_old_workers
for /l %%n in (1,1,64) do if exist %%n\log.txt 2>nul (>>%%n\log.txt type nul) || goto busy
exit /b 0
:busy
call :look
if defined c_stop (
    set "c_code=130"
    exit /b 1
)
if not defined c_told >&2 echo waiting for what an earlier run is still sending
set "c_told=yes"
call :pause 1
goto await_old_workers

:work
del /q failed.*.txt 2>nul
for /l %%n in (1,1,%c_workers%) do call :start_worker %%n
set "c_round=0"
:working
call :pause 1
set /a c_round+=1
if %c_round% equ 30 call :progress
for /l %%n in (1,1,%c_workers%) do 2>nul (>>%%n\log.txt type nul) || goto working
for /l %%n in (1,1,%c_workers%) do if not exist %%n\end.txt >&2 echo error: worker %%n was killed
exit /b 0

:start_worker
if not exist %1\ mkdir %1
if exist %1\end.txt del %1\end.txt
start "" /b "%ComSpec%" /d /c .\run.bat /worker %1 >%1\log.txt 2>&1
exit /b 0

:progress
set "c_round=0"
set "c_now=%c_there%"
for /l %%n in (1,1,%c_workers%) do if exist "%c_base%.results.%%n" (
    for /f "usebackq tokens=3 delims=|" %%c in ("%c_base%.results.%%n") do if "%%c"=="ok" set /a c_now+=1
)
>&2 echo %c_now% of %c_files% files have arrived
exit /b 0

rem Puts what the workers noted into the results file, which is replaced as a whole: it never has half a line.
:gather
set "c_any="
for /l %%n in (1,1,64) do if exist "%c_base%.results.%%n" set "c_any=yes"
if not defined c_any exit /b 0
type title.txt >"%c_base%.gathered"
for /f "usebackq skip=1 delims=" %%l in ("%c_base%.results") do if not "%%l"=="# end" >>"%c_base%.gathered" echo %%l
for /l %%n in (1,1,64) do if exist "%c_base%.results.%%n" (
    for /f "usebackq tokens=1-4 delims=|" %%a in ("%c_base%.results.%%n") do if "%%c"=="ok" if "%%d"=="" (
        if not exist done\%%a >>"%c_base%.gathered" echo %%a %%b
    )
)
call :put_results || exit /b 1
for /l %%n in (1,1,64) do if exist "%c_base%.results.%%n" del "%c_base%.results.%%n"
exit /b 0

rem Leaves in done\, as files called by their numbers, what of this list is in the results, and counts it in c_there.
rem Numbers alone do not tell the files of different journals apart.
:learn
for /f "usebackq skip=1 delims=" %%l in ("%c_base%.results") do for /f %%i in ("%%l") do (
    type mark.txt >done\%%i
    >>done\%%i echo %%l
)
set "c_there=0"
for /f "usebackq tokens=1-9 delims=|" %%a in ("%c_base%.files") do if "%%a"=="@F" if exist done\%%b (
    set "c_line=%%b %%i"
    call :same %%b
)
exit /b 0

:same
set "c_was="
for /f "usebackq skip=1 delims=" %%l in ("done\%1") do set "c_was=%%l"
if not "%c_was%"=="%c_line%" del done\%1
if "%c_was%"=="%c_line%" set /a c_there+=1
exit /b 0

rem Sets c_code. The lock is given back in every ending that comes here.
:conclude
set "c_code=0"
if not "%c_there%"=="%c_files%" set "c_code=3"
call :look
if "%c_code%"=="3" if defined c_stop if not exist halt.txt set "c_code=130"
if exist "%c_base%.failed" del "%c_base%.failed"
for /l %%n in (1,1,64) do if exist failed.%%n.txt type failed.%%n.txt >>"%c_base%.failed"
set "c_proven=0"
if "%c_standalone%"=="no" call :record
call :give_back || set "c_code=1"
set /a c_missing=c_files-c_there
set "c_halt="
if exist halt.txt for /f %%h in (halt.txt) do set "c_halt=%%h"
if "%c_halt%"=="expired" >&2 echo the SAS token has expired meanwhile: ask for a new one, and run this again
if defined c_halt >&2 echo nothing got through any more; "%c_work%" has in its log.txt files what %c_tool% said
if "%c_missing%"=="0" (
    >&2 echo all %c_files% files have arrived
) else (
    >&2 echo %c_missing% of %c_files% files have not arrived
)
if exist "%c_base%.failed" >&2 echo "%c_base%.failed" says why
if "%c_code%"=="130" >&2 echo stopped; run it again to go on
if "%c_standalone%"=="yes" >&2 echo to record this: chorus-upload file mark-as-uploaded --results "%c_base%.results"
if not "%c_proven%"=="0" set "c_code=%c_proven%"
exit /b 0

:record
>&2 echo checking what arrived, and recording it in the journal
setlocal
set "AZURE_CONFIG_DIR=%c_az_settings%"
call %c_chorus% --config "%%c_config%%" file mark-as-uploaded --results "%%c_base%%.results" >&2 <nul
endlocal & set "c_proven=%errorlevel%"
exit /b 0

rem Sets c_stop when the run is to end: all of it, or nothing gets through, or the front is not there any more.
:look
if exist "%c_work%\halt.txt" set "c_stop=yes"
if exist "%c_base%.stop" set "c_stop=yes"
2>nul (>>"%c_work%\front.txt" type nul) && set "c_stop=yes"
exit /b 0

rem Waits %1 seconds, more or less.
:pause
set /a c_pings=%1+1
"%c_system%\ping.exe" -n %c_pings% 127.0.0.1 >nul
exit /b 0

rem --- The lock of the journal ---------------------------------------------------------------------------------------

:take_lock
if "%c_standalone%"=="yes" goto take_it_with_az
setlocal
set "AZURE_CONFIG_DIR=%c_az_settings%"
call %c_chorus% --config "%%c_config%%" journal checkout >&2 <nul
exit /b %errorlevel%

rem The id is noted before the lock is taken: a script that was killed in between knows its lock by it.
:take_it_with_az
setlocal
call :journal_token
set "c_id="
set "c_tag="
if exist "%c_base%.lock" for /f "usebackq tokens=1" %%a in ("%c_base%.lock") do if not defined c_id set "c_id=%%a"
if defined c_id goto known_lock
set "c_id=%random%-%random%-%random%-%random%-%random%"
call :note_lock
:known_lock
>lockname.txt call :echo_plain c_lock
set "c_since=%c_written%"
call :write_lock
call az storage blob upload %c_to_journal% --name "@lockname.txt" --file lock.json --if-none-match * --overwrite false ^
    --type block --no-progress --query "{a:etag,b:lastModified}" --output tsv >locked.txt 2>lock.log <nul
if errorlevel 1 goto is_it_ours
for /f "tokens=1,2" %%a in (locked.txt) do (
    set "c_tag=%%~a"
    set "c_moment=%%b"
)
call :note_lock
rem Only the answer says what time it is, in a form that is the same on all machines.
call :since
call :write_lock
call az storage blob upload %c_to_journal% --name "@lockname.txt" --file lock.json --if-match "@etag.txt" ^
    --overwrite true --type block --no-progress --query etag --output tsv >locked.txt 2>>lock.log <nul
if not errorlevel 1 for /f %%a in (locked.txt) do set "c_tag=%%~a"
call :note_lock
exit /b 0

:is_it_ours
if exist held.json del held.json
call az storage blob download %c_to_journal% --name "@lockname.txt" --file held.json --no-progress --output none ^
    >>lock.log 2>&1 <nul
if errorlevel 1 goto no_lock
"%c_system%\find.exe" "%c_id%" <held.json >nul
if errorlevel 1 goto theirs
call az storage blob show %c_to_journal% --name "@lockname.txt" --query properties.etag --output tsv >locked.txt ^
    2>>lock.log <nul
if errorlevel 1 goto no_lock
for /f %%a in (locked.txt) do set "c_tag=%%~a"
call :note_lock
exit /b 0
:theirs
del "%c_base%.lock"
>&2 echo error: somebody else has the journal; wait, or ask that person. The lock says:
>&2 type held.json
>&2 echo:
exit /b 10
:no_lock
>&2 echo error: the lock of the journal could not be taken:
>&2 type lock.log
exit /b 1

:note_lock
>"%c_base%.lock" echo %c_id% %c_tag%
>etag.txt echo "%c_tag%"
exit /b 0

:give_back
if "%c_standalone%"=="yes" goto give_it_back_with_az
setlocal
set "AZURE_CONFIG_DIR=%c_az_settings%"
call %c_chorus% --config "%%c_config%%" journal checkin >&2 <nul && exit /b 0
>&2 echo error: the journal could not be given back; run this again, or: chorus-upload journal checkin
exit /b 1
:give_it_back_with_az
if not exist "%c_base%.lock" exit /b 0
setlocal
call :journal_token
call az storage blob delete %c_to_journal% --name "@lockname.txt" --if-match "@etag.txt" --output none 2>lock.log <nul
if errorlevel 1 (
    >&2 echo error: the lock of the journal could not be given back; run this again:
    >&2 type lock.log
    exit /b 1
)
del "%c_base%.lock"
exit /b 0

:journal_token
if not defined CHORUS_JOURNAL_SAS_TOKEN exit /b 0
if "%c_login%"=="yes" exit /b 0
set "AZURE_STORAGE_SAS_TOKEN=%CHORUS_JOURNAL_SAS_TOKEN%"
exit /b 0

:write_lock
setlocal EnableDelayedExpansion
set "c_owner=unknown"
set "c_host=unknown"
if defined USERNAME set "c_owner=!USERNAME:\=/!"
if defined COMPUTERNAME set "c_host=!COMPUTERNAME:\=/!"
>lock.json echo {
>>lock.json echo   "id": "!c_id!",
>>lock.json echo   "owner": "!c_owner!",
>>lock.json echo   "host": "!c_host!",
>>lock.json echo   "process": 0,
>>lock.json echo   "since_us": !c_since!000000,
>>lock.json echo   "renewed_us": !c_since!000000,
>>lock.json echo   "tool_version": "!c_version!",
>>lock.json echo   "journal_etag": null,
>>lock.json echo   "by_hand": true
>>lock.json echo }
exit /b 0

rem The seconds from 1970 to c_moment, as 2026-11-21T17:10:05+00:00, in c_since. A number with 0 in front is octal.
:since
for /f "tokens=1-6 delims=-T:+" %%a in ("%c_moment%") do (
    set /a c_year=%%a, c_month=1%%b-100, c_day=1%%c-100, c_since=1%%d*3600+1%%e*60+1%%f-366100
)
set /a c_early=(14-c_month)/12
set /a c_year+=4800-c_early, c_month+=12*c_early-3
set /a c_day+=(153*c_month+2)/5+365*c_year+c_year/4-c_year/100+c_year/400-32045-2440588
set /a c_since+=c_day*86400
exit /b 0

:echo_plain
setlocal EnableDelayedExpansion
echo !%1!
exit /b 0

rem --- A worker: sends every batch whose number is its own, modulo the number of workers. ----------------------------

rem Its directory has the links of one batch in b\, and in sent.txt what is to be noted when they have arrived.
:worker
set "c_me=%~2"
pushd %c_me%
set "c_stop="
set "c_row=0"
set "c_lost=0"
set "c_mine="
set "c_kind=batch"
set "c_notes=%c_base%.results.%c_me%"
set "c_failed=%c_work%\failed.%c_me%.txt"
if not exist "%c_notes%" >"%c_notes%" call :echo_plain c_mark
set "c_under="
if defined c_prefix set "c_under=--destination-path @prefix.txt"
>prefix.txt call :echo_plain c_prefix
set "c_query="
if defined AZURE_STORAGE_SAS_TOKEN set "c_query=?%AZURE_STORAGE_SAS_TOKEN%"
rem It replaces nothing: it cannot look at what it replaces.
set "c_azcopy_options=--from-to=LocalBlob --overwrite=false --blob-type=BlockBlob --put-md5 --check-length=true"
set "c_azcopy_options=%c_azcopy_options% --output-level=essential --log-level=ERROR"
if defined c_trusted set "c_azcopy_options=%c_azcopy_options% --trusted-microsoft-suffixes=%c_trusted%"
set "AZCOPY_LOG_LOCATION=%CD%\azcopy"
set "AZCOPY_JOB_PLAN_LOCATION=%CD%\azcopy"
set "c_directory=%CD%"
call :measure_here
rem A line whose writing was broken off stays alone.
>>"%c_notes%" echo @C
call :clear
for /f "usebackq tokens=1-9* delims=|" %%a in ("%c_base%.files") do (
    if "%%a"=="@B" call :next %%b %%c
    if "%%a"=="@F" if defined c_mine (
        set "c_id=%%b"
        set "c_size=%%c"
        set "c_root=%%d"
        set "c_length=%%e"
        set "c_key_length=%%f"
        set "c_below=%%g"
        set "c_coded=%%h"
        set "c_key=%%i"
        set "c_path=%%j"
        call :take
    )
)
call :send
rem At the end, one by one, what was in batches that were refused: what is wrong with one file keeps no other.
set "c_kind=single"
for %%p in (new old) do call :singles %%p
call :clear
>end.txt echo %c_row%
exit /b 0

rem Of these first what was not tried in an earlier run, then what was.
:singles
set "c_pass=%1"
set "c_mine="
for /f "usebackq tokens=1-9* delims=|" %%a in ("%c_base%.files") do (
    if "%%a"=="@B" call :next %%b %%c
    if "%%a"=="@F" if defined c_mine (
        set "c_id=%%b"
        set "c_size=%%c"
        set "c_root=%%d"
        set "c_length=%%e"
        set "c_key_length=%%f"
        set "c_below=%%g"
        set "c_coded=%%h"
        set "c_key=%%i"
        set "c_path=%%j"
        call :take
    )
)
exit /b 0

:measure_here
setlocal EnableDelayedExpansion
set "c_length=4"
call :measure c_directory
endlocal & set "c_length_here=%c_length%"
exit /b 0

rem The batch %1 begins; if %2 is not - it is one file, which replaces the one of that etag.
:next
if defined c_mine if "%c_kind%"=="batch" call :send
set "c_mine="
if defined c_stop exit /b 0
set /a c_turn=%1 %% c_workers + 1
if not "%c_turn%"=="%c_me%" exit /b 0
if "%c_kind%"=="batch" if exist ..\later\%1 exit /b 0
if "%c_kind%"=="single" if not exist ..\later\%1 exit /b 0
call :look
if defined c_stop exit /b 0
set "c_mine=%1"
set "c_over=--overwrite false"
if "%2"=="-" exit /b 0
rem With quotes, as the service has them; in a file they need none around them.
>match.txt echo "%2"
set "c_over=--overwrite true --if-match @match.txt"
exit /b 0

:clear
if exist b\ rmdir /s /q b
mkdir b
if exist sent.txt del sent.txt
if exist copy.bin del /f copy.bin
exit /b 0

rem One file: into the batch, or by itself. 1 says that it was tried in vain, 2 that it arrived, 3 that
rem the run is to end.
:take
if defined c_stop exit /b 0
call :file
if errorlevel 3 (
    set "c_stop=yes"
) else if errorlevel 2 (
    set "c_row=0"
) else if errorlevel 1 (
    set /a c_row+=1
)
if %c_row% geq 5 call :halt
if %c_row% geq 3 if exist refused.txt call :halt
exit /b 0

rem While something arrives, what is refused is refused for reasons of its own.
:halt
if exist ..\arrived.txt exit /b 0
>"%c_work%\halt.txt" echo %c_me%
set "c_stop=yes"
exit /b 0

:file
if exist ..\done\%c_id% exit /b 0
if exist ..\through\%c_id% exit /b 0
if "%c_kind%%c_pass%"=="singlenew" if exist ..\tried\%c_id% exit /b 0
setlocal EnableDelayedExpansion
set "c_file=!c_root_%c_root%!\!c_path!"
set /a c_long=c_length+c_length_%c_root%
rem Longer paths than this cmd and the tools can only read in the other form.
if !c_long! gtr 240 set "c_file=!c_long_%c_root%!\!c_path!"
set "c_why=there is no such file any more"
if not exist "!c_file!" goto missing
set "c_now="
set "c_flags="
for /f "delims=" %%f in ("!c_file!") do (
    set "c_now=%%~zf"
    set "c_flags=%%~af"
)
rem cmd itself may not know the size of a file with so long a path.
if not defined c_now if !c_long! gtr 240 set "c_now=!c_size!"
set "c_why=it has changed, or cannot be read: run `journal update`"
if not "!c_now!"=="!c_size!" goto missing
if "!c_kind!"=="single" goto alone
if not "!c_over!"=="--overwrite false" goto alone
rem To remove the link of a write-protected file can take away the protection of the file.
if "!c_flags:~1,1!"=="r" goto alone
set "c_link=!c_key:/=\!"
set "c_directory="
if not "%c_below%"=="0" set "c_directory=!c_link:~0,%c_below%!"
set /a c_long=c_length_here+c_key_length
if !c_long! gtr 240 goto alone
if not exist "b\!c_directory!\" mkdir "b\!c_directory!"
if exist "b\!c_link!" goto alone
mklink /H "b\!c_link!" "!c_file!" >nul 2>nul || goto alone
>>sent.txt echo !c_id!^|!c_key!^|ok
exit /b 0
:missing
type nul >..\through\%c_id%
>>"!c_failed!" echo !c_id! !c_key!: !c_why!
exit /b 0

rem Under setlocal EnableDelayedExpansion, from :file.
:alone
set "c_full=!c_key!"
if defined c_prefix set "c_full=!c_prefix!/!c_key!"
>name.txt echo !c_full!
>file.txt echo !c_file!
set "c_try=1"
:alone_again
call :alone_with_%c_tool%
if not errorlevel 1 goto arrived
call :is_refused && goto not_arrived
call :look
if defined c_stop exit /b 3
if %c_try% geq 3 goto not_arrived
call :wait
goto alone_again
:arrived
type nul >..\through\%c_id%
type nul >>..\arrived.txt
>>"!c_notes!" echo !c_id!^|!c_key!^|ok
exit /b 2
:not_arrived
type nul >..\through\%c_id%
setlocal DisableDelayedExpansion
call :reason
setlocal EnableDelayedExpansion
>>"!c_failed!" echo !c_id! !c_key!: !c_tool! failed: !c_why!
exit /b 1

rem Whether the service itself has refused the last run, in words that are not about one file: it helps nothing to ask
rem again. If that is because the token has expired meanwhile, all ends.
:is_refused
set "c_said=said.txt"
if "%c_tool%"=="azcopy" set "c_said=azcopy.txt"
"%c_system%\findstr.exe" /c:"permissions needed to perform" /c:"blocked by network rules" /c:"AuthenticationFailed" ^
    /c:"AuthorizationFailure" /c:"AuthorizationPermissionMismatch" /c:"AuthorizationResourceTypeMismatch" ^
    /c:"InvalidAuthenticationInfo" /c:"NoAuthenticationInformation" /c:"PublicAccessNotPermitted" ^
    /c:"ContainerNotFound" /c:"AccountIsDisabled" /c:"AADSTS" /c:"az login" <%c_said% >found.txt
if errorlevel 1 (
    if exist refused.txt del refused.txt
    exit /b 1
)
type nul >refused.txt
if "%c_login%"=="no" call :time_now
if defined c_expires if "%c_expires%" leq "%c_utc%" (
    echo the SAS token has expired meanwhile: ask for a new one, and run this again
    >"%c_work%\halt.txt" echo expired
)
exit /b 0

rem What the tool said, in c_why: the code of an error, or its last words.
:reason
set "c_why=it said nothing"
for /f "tokens=1*" %%l in (said.txt) do (
    set "c_word=%%l%%m"
    if defined c_word set "c_why=%%l %%m"
)
type nul >reason.txt
if "%c_tool%"=="azcopy" "%c_system%\find.exe" "RESPONSE Status:" <azcopy.txt >reason.txt
for /f "tokens=1*" %%l in (reason.txt) do set "c_why=%%l %%m"
"%c_system%\find.exe" "ErrorCode:" <said.txt >reason.txt
for /f "tokens=1*" %%l in (reason.txt) do set "c_why=%%l %%m"
exit /b 0

:wait
set /a c_wait=CHORUS_RETRY_WAIT*(2*c_try-1)
set /a c_try+=1
call :pause %c_wait%
exit /b 0

:alone_with_az
call az storage blob upload %c_to_destination% --container-name %c_container% --name "@name.txt" --file "@file.txt" ^
    %c_over% --type block --validate-content --no-progress --only-show-errors --output none 2>said.txt <nul
if not errorlevel 1 exit /b 0
type said.txt
if not "%c_over%"=="--overwrite false" exit /b 1
rem az refuses what is there already; then it only has to be the same.
if exist size.txt del size.txt
call az storage blob show %c_to_destination% --container-name %c_container% --name "@name.txt" ^
    --query properties.contentLength --only-show-errors --output tsv >size.txt 2>show.txt <nul
if errorlevel 1 exit /b 1
set "c_now="
for /f %%s in (size.txt) do set "c_now=%%s"
if "%c_now%"=="%c_size%" exit /b 0
exit /b 1

:alone_with_azcopy
rem azcopy takes the path of a single file for a URL, where that sign means more: it gets a copy of a plain name.
if not "!c_file:%%=!"=="!c_file!" (
    if exist copy.bin del /f copy.bin
    copy /y /b "!c_file!" copy.bin >nul || exit /b 1
    set "c_file=copy.bin"
)
if exist azcopy\ del /q azcopy\*.log
azcopy copy "!c_file!" "!c_url!/!c_coded!!c_query!" %c_azcopy_options% >said.txt 2>&1 <nul
set "c_ended=%errorlevel%"
set "c_links=1"
goto is_all_there

rem What is in b\; repeated if it fails, and then each file by itself.
:send
if not exist sent.txt exit /b 0
if defined c_stop exit /b 0
set "c_try=1"
:send_again
call :send_with_%c_tool%
if not errorlevel 1 goto sent
call :is_refused && goto one_by_one
call :look
if defined c_stop exit /b 0
if %c_try% geq 3 goto one_by_one
call :wait
goto send_again
:sent
type sent.txt >>"%c_notes%"
type nul >>..\arrived.txt
set "c_row=0"
set "c_lost=0"
call :clear
exit /b 0
:one_by_one
type nul >..\later\%c_mine%
set /a c_lost+=1
if %c_lost% geq 5 call :halt
if %c_lost% geq 3 if exist refused.txt call :halt
call :clear
exit /b 0

rem Both tools end with 0, too, when they passed over files: they have to account for every link.
:send_with_az
call az storage blob upload-batch %c_to_destination% --source b --destination %c_container% %c_under% ^
    %c_over% --type block --validate-content --no-progress --only-show-errors --query "length(@)" --output tsv ^
    >count.txt 2>said.txt <nul
set "c_ended=%errorlevel%"
type said.txt
if not "%c_ended%"=="0" exit /b 1
set "c_count=0"
for /f %%n in (count.txt) do set "c_count=%%n"
"%c_system%\find.exe" "ErrorCode:BlobAlreadyExists" <said.txt >count.txt
if "%c_over%"=="--overwrite false" for /f %%l in (count.txt) do set /a c_count+=1
call :count_links
if "%c_count%"=="%c_links%" exit /b 0
exit /b 1

:send_with_azcopy
call :count_links
setlocal EnableDelayedExpansion
if exist azcopy\ del /q azcopy\*.log
azcopy copy "b/*" "!c_url!!c_query!" --recursive %c_azcopy_options% >said.txt 2>&1 <nul
set "c_ended=%errorlevel%"
:is_all_there
type said.txt
type nul >azcopy.txt
if not "%c_ended%"=="0" for %%f in (azcopy\*.log) do type "%%f" >>azcopy.txt
type azcopy.txt
if not "%c_ended%"=="0" exit /b 1
rem What is there already is skipped. Older ones do not say that they count files.
set "c_count=0"
"%c_system%\find.exe" "Transfers " <said.txt >count.txt
for /f "tokens=3-6" %%a in (count.txt) do (
    if "%%a %%b %%c"=="File Transfers Completed:" set /a c_count+=%%d
    if "%%a %%b %%c"=="File Transfers Skipped:" set /a c_count+=%%d
    if "%%a %%b"=="Transfers Completed:" set /a c_count+=%%c
    if "%%a %%b"=="Transfers Skipped:" set /a c_count+=%%c
)
if "%c_count%"=="%c_links%" exit /b 0
exit /b 1

:count_links
set "c_links=0"
for /f %%l in (sent.txt) do set /a c_links+=1
exit /b 0
